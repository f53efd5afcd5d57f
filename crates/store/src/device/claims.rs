//! Who is at work on which blocks: what is being filled is not punched, and the other way round.

use std::ops::Range;

use parking_lot::{Condvar, Mutex};

/// See the module. Fills of the same blocks do not exclude each other: both write the same bytes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Mutex<Held>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    filling: Vec<Range<u64>>,
    punching: Vec<Range<u64>>,
}

/// Blocks that are claimed until this is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    blocks: &'a [Range<u64>],
    is_fill: bool,
}

fn overlap(one: &[Range<u64>], other: &[Range<u64>]) -> bool {
    one.iter().any(|one| {
        let mut others = other.iter();
        others.any(|other| one.start < other.end && other.start < one.end)
    })
}

impl Claims {
    /// Claims blocks to fill them, once nobody punches any of them.
    pub(super) fn to_fill<'a>(&'a self, blocks: &'a [Range<u64>]) -> Claim<'a> {
        let mut held = self.held.lock();
        while overlap(&held.punching, blocks) {
            self.freed.wait(&mut held);
        }
        held.filling.extend_from_slice(blocks);
        Claim {
            claims: self,
            blocks,
            is_fill: true,
        }
    }

    /// Claims blocks to punch them, once nobody fills any of them. One at a time.
    pub(super) fn to_punch<'a>(&'a self, blocks: &'a [Range<u64>]) -> Claim<'a> {
        let mut held = self.held.lock();
        while overlap(&held.filling, blocks) {
            self.freed.wait(&mut held);
        }
        held.punching.extend_from_slice(blocks);
        Claim {
            claims: self,
            blocks,
            is_fill: false,
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut held = self.claims.held.lock();
        let claimed = if self.is_fill {
            &mut held.filling
        } else {
            &mut held.punching
        };
        for blocks in self.blocks {
            if let Some(at) = claimed.iter().position(|one| one == blocks) {
                claimed.swap_remove(at);
            }
        }
        drop(held);
        self.claims.freed.notify_all();
    }
}
