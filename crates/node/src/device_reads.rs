//! Reads that come through FUSE: answered from devices, once what they need is there.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use draught_mount::fuse::ReadReply;
use parking_lot::Mutex;

use crate::engine::{Asker, Engine};
use crate::served::Served;

/// Part of what a read gives.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) served: Arc<Served>,
    /// Which bytes of the device.
    pub(crate) range: Range<u64>,
    /// Where in the answer they belong.
    pub(crate) at: usize,
}

/// A read that waits for its parts.
#[derive(Debug)]
struct Pending {
    parts: Vec<Part>,
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    remaining: usize,
    failure: Option<io::ErrorKind>,
    reply: Option<ReadReply>,
}

/// Answers a read of so many bytes when all its parts are there; what no part covers is zeros.
pub(crate) fn answer(engine: &Arc<Engine>, parts: Vec<Part>, bytes: usize, reply: ReadReply) {
    if parts.is_empty() {
        reply.data(&vec![0; bytes]);
        return;
    }
    let pending = Arc::new(Pending {
        bytes,
        state: Mutex::new(State {
            remaining: parts.len(),
            failure: None,
            reply: Some(reply),
        }),
        parts,
    });
    for part in &pending.parts {
        let own = Arc::clone(&pending);
        let told = Box::new(move |result| own.told(result));
        let Range { start, end } = part.range.clone();
        let served = Arc::clone(&part.served);
        engine.ask(served, start, end - start, Asker::Call(told));
    }
}

impl Pending {
    fn told(&self, result: Result<(), io::ErrorKind>) {
        let (reply, failure) = {
            let mut state = self.state.lock();
            state.remaining -= 1;
            state.failure = state.failure.or(result.err());
            if state.remaining > 0 {
                return;
            }
            (state.reply.take(), state.failure)
        };
        let Some(reply) = reply else { return };
        match failure.map_or_else(|| self.read(), |kind| Err(kind.into())) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.fail(&error),
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes];
        for part in &self.parts {
            let len = usize::try_from(part.range.end - part.range.start).unwrap_or(usize::MAX);
            let end = part.at.saturating_add(len);
            let Some(target) = bytes.get_mut(part.at..end) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            // Through the descriptor that was there before any mark: it raises no events.
            let device = part.served.device();
            let file = std::fs::File::from(device.as_fd().try_clone_to_owned()?);
            file.read_exact_at(target, part.range.start)?;
            // A disk that failed in the meantime may have given back less than was written.
            if !part.served.has(&part.range) {
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(bytes)
    }
}
