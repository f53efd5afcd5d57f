//! A disk in memory that remembers what was done to it, so that the files which a crash at any moment
//! could leave can be built afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bits::{narrow, widen};
use super::storage::Storage;

/// What the simulated disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
type Sector = [u8; SECTOR];

/// Which of a device's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Data,
    Map,
}

/// What a file holds. Sectors that are not listed are zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) len: u64,
    pub(super) sectors: BTreeMap<u64, Sector>,
}

impl Content {
    pub(super) fn sector(&self, sector: u64) -> Sector {
        self.sectors.get(&sector).copied().unwrap_or([0; SECTOR])
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert_eq!(offset % 512, 0, "all writes are of whole sectors");
        assert_eq!(bytes.len() % SECTOR, 0, "all writes are of whole sectors");
        for (index, bytes) in bytes.chunks(SECTOR).enumerate() {
            let sector = offset / 512 + widen(index);
            self.sectors.insert(sector, bytes.try_into().unwrap());
        }
        self.len = self.len.max(offset + widen(bytes.len()));
    }

    fn set_len(&mut self, len: u64) {
        self.sectors.retain(|sector, _| (sector + 1) * 512 <= len);
        self.len = len;
    }
}

/// Both files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) data: Content,
    pub(super) map: Content,
}

impl Contents {
    pub(super) fn of(&mut self, which: Which) -> &mut Content {
        match which {
            Which::Data => &mut self.data,
            Which::Map => &mut self.map,
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write {
                which,
                offset,
                bytes,
            } => self.of(*which).write(*offset, bytes),
            Event::SetLen { which, len } => self.of(*which).set_len(*len),
            Event::Lost { which, left } => *self.of(*which) = left.clone(),
            Event::Synced { .. } | Event::Broken | Event::Marked(_) | Event::Durable(_) => {}
        }
    }
}

/// What happened, in order.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Write {
        which: Which,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        which: Which,
        len: u64,
    },
    Synced {
        which: Which,
    },
    /// A synchronization failed; this is what is left of the file, on disk and in the page cache.
    Lost {
        which: Which,
        left: Content,
    },
    /// A write failed with an error that is not a full disk.
    Broken,
    /// The test was told that these blocks are present.
    Marked(Range<u64>),
    /// The test was told that these blocks are durable.
    Durable(Vec<u64>),
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    NoSpace,
    Disk,
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Self::NoSpace => rustix::io::Errno::NOSPC.into(),
            Self::Disk => rustix::io::Errno::IO.into(),
        }
    }
}

/// Something to do while a synchronization is under way.
pub(super) struct Hook {
    pub(super) which: Which,
    /// Before the barrier takes effect, or after it.
    pub(super) before: bool,
    pub(super) action: Box<dyn FnOnce() + Send>,
}

struct State {
    /// What was durable when the history began.
    start: Contents,
    now: Contents,
    events: Vec<Event>,
    /// Fails the call that comes after so many others.
    fault: Option<(u32, Failure)>,
    hook: Option<Hook>,
    random: Random,
}

/// A simulated disk with a device's two files.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// A disk on which `contents` are durable.
    pub(super) fn new(contents: Contents, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            start: contents.clone(),
            now: contents,
            events: Vec::new(),
            fault: None,
            hook: None,
            random: Random(seed),
        })))
    }

    pub(super) fn file(&self, which: Which) -> SimStorage {
        SimStorage {
            disk: self.clone(),
            which,
        }
    }

    /// Fails the call that comes after `calls` others.
    pub(super) fn fail_after(&self, calls: u32, failure: Failure) {
        self.0.lock().fault = Some((calls, failure));
    }

    pub(super) fn heal(&self) {
        self.0.lock().fault = None;
    }

    pub(super) fn set_hook(&self, hook: Option<Hook>) {
        self.0.lock().hook = hook;
    }

    /// Adds what the test was told to the history.
    pub(super) fn note(&self, event: Event) {
        self.0.lock().events.push(event);
    }

    /// What reading gives now.
    pub(super) fn now(&self) -> Contents {
        self.0.lock().now.clone()
    }

    pub(super) fn history(&self) -> History {
        let state = self.0.lock();
        History {
            start: state.start.clone(),
            events: state.events.clone(),
        }
    }

    fn run_hook(&self, which: Which, before: bool) {
        let hook = self
            .0
            .lock()
            .hook
            .take_if(|hook| hook.which == which && hook.before == before);
        if let Some(hook) = hook {
            (hook.action)();
        }
    }
}

impl State {
    /// Whether this call fails.
    fn fails(&mut self) -> Option<Failure> {
        let (calls, failure) = self.fault?;
        if calls > 0 {
            self.fault = Some((calls - 1, failure));
            return None;
        }
        self.fault = None;
        Some(failure)
    }

    fn happen(&mut self, event: Event) {
        self.now.apply(&event);
        self.events.push(event);
    }
}

/// One file of a [`Disk`].
#[derive(Debug)]
pub(super) struct SimStorage {
    disk: Disk,
    which: Which,
}

impl Storage for SimStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().now.of(self.which).len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let content = state.now.of(self.which);
        if offset + widen(buf.len()) > content.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (index, byte) in buf.iter_mut().enumerate() {
            let at = offset + widen(index);
            *byte = content
                .sectors
                .get(&(at / 512))
                .map_or(0, |sector| sector[narrow(at % 512)]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let which = self.which;
        let mut state = self.disk.0.lock();
        let Some(failure) = state.fails() else {
            state.happen(Event::Write {
                which,
                offset,
                bytes: bytes.to_vec(),
            });
            return Ok(());
        };
        // Some sectors of it are written. None is torn: what fails is finding space or a disk for a
        // page, not the copy into it. A power cut may still tear any of them.
        let sectors = narrow(state.random.below(widen(bytes.len() / SECTOR) + 1));
        let part = bytes[..sectors * SECTOR].to_vec();
        if !part.is_empty() {
            state.happen(Event::Write {
                which,
                offset,
                bytes: part,
            });
        }
        if failure == Failure::Disk {
            state.happen(Event::Broken);
        }
        Err(failure.error())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if let Some(failure) = state.fails() {
            return Err(failure.error());
        }
        let which = self.which;
        state.happen(Event::SetLen { which, len: bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let which = self.which;
        self.disk.run_hook(which, true);
        let result = {
            let mut state = self.disk.0.lock();
            match state.fails() {
                None => {
                    state.happen(Event::Synced { which });
                    Ok(())
                }
                Some(failure) => {
                    let history = History {
                        start: state.start.clone(),
                        events: state.events.clone(),
                    };
                    let end = history.events.len();
                    let mut left = history.power_cut(end, &mut state.random, false);
                    let left = std::mem::take(left.of(which));
                    state.happen(Event::Lost { which, left });
                    Err(failure.error())
                }
            }
        };
        self.disk.run_hook(which, false);
        result
    }
}

/// All that happened since a moment at which everything was durable.
#[derive(Debug)]
pub(super) struct History {
    pub(super) start: Contents,
    pub(super) events: Vec<Event>,
}

impl History {
    /// What a process that died during the event `end` leaves: all before, and a part of that one.
    pub(super) fn process_crash(&self, end: usize, random: &mut Random) -> Contents {
        let mut contents = self.start.clone();
        for event in &self.events[..end] {
            contents.apply(event);
        }
        if let Some(Event::Write {
            which,
            offset,
            bytes,
        }) = self.events.get(end)
        {
            let sectors = narrow(random.below(widen(bytes.len() / SECTOR) + 1));
            contents
                .of(*which)
                .write(*offset, &bytes[..sectors * SECTOR]);
        }
        contents
    }

    /// What a machine that died after the first `end` events leaves: what was synchronized, and of the
    /// rest, for every sector by itself, its old content or that after any write since. With `tears`,
    /// sectors may also be torn.
    pub(super) fn power_cut(&self, end: usize, random: &mut Random, tears: bool) -> Contents {
        let mut contents = self.start.clone();
        for which in [Which::Data, Which::Map] {
            let mut now = contents.of(which).clone();
            let mut durable = now.clone();
            let mut versions: BTreeMap<u64, Vec<Sector>> = BTreeMap::new();
            let mut lens = vec![now.len];
            for event in &self.events[..end] {
                match event {
                    Event::Write {
                        which: w,
                        offset,
                        bytes,
                    } if *w == which => {
                        now.write(*offset, bytes);
                        for (index, bytes) in bytes.chunks(SECTOR).enumerate() {
                            let sector = offset / 512 + widen(index);
                            let seen = versions.entry(sector).or_default();
                            seen.push(bytes.try_into().unwrap());
                        }
                    }
                    Event::SetLen { which: w, len } if *w == which => now.set_len(*len),
                    Event::Synced { which: w } if *w == which => {
                        durable = now.clone();
                        versions.clear();
                        lens.clear();
                    }
                    Event::Lost { which: w, left } if *w == which => {
                        now = left.clone();
                        durable = left.clone();
                        versions.clear();
                        lens.clear();
                    }
                    _ => {}
                }
                lens.push(now.len);
            }
            lens.push(durable.len);
            for (sector, seen) in versions {
                let old = durable.sector(sector);
                let mut left = match random.below(widen(seen.len()) + 1) {
                    0 => old,
                    version => seen[narrow(version) - 1],
                };
                if tears && random.coin() {
                    left = torn(random, &old, seen[seen.len() - 1]);
                }
                durable.sectors.insert(sector, left);
            }
            let len = lens[narrow(random.below(widen(lens.len())))];
            durable.len = len;
            durable.set_len(len);
            *contents.of(which) = durable;
        }
        contents
    }
}

fn torn(random: &mut Random, old: &Sector, new: Sector) -> Sector {
    let at = narrow(random.below(512));
    let mut torn = *old;
    if random.coin() {
        torn[..at].copy_from_slice(&new[..at]);
    } else {
        torn[at..].copy_from_slice(&new[at..]);
    }
    torn
}

/// A small generator (splitmix64): the same seed gives the same run.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}
