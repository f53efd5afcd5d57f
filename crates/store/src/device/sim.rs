//! A disk in memory that remembers what was done to it, so that the files which a crash at any moment
//! could leave can be built afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bits::{narrow, widen};
use super::format::BLOCK_BYTES;
use super::storage::Storage;

/// What the simulated disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;
type Sector = [u8; SECTOR];

/// Which of a device's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    Data,
    Map,
    Table,
    Twins,
}

impl Which {
    const ALL: [Self; 4] = [Self::Data, Self::Map, Self::Table, Self::Twins];
}

/// What a file holds. Sectors that are not listed are zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) len: u64,
    pub(crate) sectors: BTreeMap<u64, Sector>,
}

impl Content {
    pub(crate) fn sector(&self, sector: u64) -> Sector {
        self.sectors.get(&sector).copied().unwrap_or([0; SECTOR])
    }

    /// Every write but those of tables and twins is of whole sectors.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let start = narrow(at % 512);
            let (now, later) = rest.split_at(rest.len().min(SECTOR - start));
            let sector = self.sectors.entry(at / 512).or_insert([0; SECTOR]);
            sector[start..start + now.len()].copy_from_slice(now);
            at += widen(now.len());
            rest = later;
        }
        if !bytes.is_empty() {
            self.len = self.len.max(at);
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let start = narrow(at % 512);
            let count = rest.len().min(SECTOR - start);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&self.sector(at / 512)[start..start + count]);
            at += widen(count);
            rest = later;
        }
    }

    fn punch(&mut self, sectors: Range<u64>) {
        let holes: Vec<u64> = self.sectors.range(sectors).map(|(at, _)| *at).collect();
        for sector in holes {
            self.sectors.remove(&sector);
        }
    }

    fn set_len(&mut self, len: u64) {
        self.sectors.retain(|sector, _| sector * 512 < len);
        if let Some(last) = self.sectors.get_mut(&(len / 512)) {
            last[narrow(len % 512)..].fill(0);
        }
        self.len = len;
    }
}

/// All files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) data: Content,
    pub(crate) map: Content,
    pub(crate) table: Content,
    pub(crate) twins: Content,
}

impl Contents {
    pub(crate) fn of(&mut self, which: Which) -> &mut Content {
        match which {
            Which::Data => &mut self.data,
            Which::Map => &mut self.map,
            Which::Table => &mut self.table,
            Which::Twins => &mut self.twins,
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write {
                which,
                offset,
                bytes,
            } => self.of(*which).write(*offset, bytes),
            Event::Punch { which, sectors } => self.of(*which).punch(sectors.clone()),
            Event::SetLen { which, len } => self.of(*which).set_len(*len),
            Event::Lost { which, left } => *self.of(*which) = left.clone(),
            Event::Synced { .. } | Event::Broken | Event::Told(_) => {}
        }
    }
}

/// What happened, in order.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write {
        which: Which,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// These became zeros.
    Punch {
        which: Which,
        sectors: Range<u64>,
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
    /// Something that the test did or was told.
    Told(Told),
}

/// What promises come from, and go by.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// These blocks will be filled: they may be present from now on.
    Filling(Range<u64>),
    /// These blocks are present.
    Marked(Range<u64>),
    /// These blocks are durable.
    Durable(Vec<u64>),
    /// These blocks will be punched: they may be gone from now on.
    Punching(Vec<Range<u64>>),
    /// They are gone, whatever happens.
    Punched(Vec<Range<u64>>),
    /// So many twins can be read.
    Learned(usize),
    /// All of the table is durable.
    TableDurable,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
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
pub(crate) struct Hook {
    pub(crate) which: Which,
    /// Before the barrier takes effect, or after it.
    pub(crate) before: bool,
    pub(crate) action: Box<dyn FnOnce() + Send>,
}

struct State {
    /// What was durable when the history began.
    start: Contents,
    now: Contents,
    events: Vec<Event>,
    /// Fails the call that comes after so many others.
    fault: Option<(u32, Failure)>,
    can_punch: bool,
    hook: Option<Hook>,
    random: Random,
}

/// A simulated disk with a device's two files.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    /// A disk on which `contents` are durable.
    pub(crate) fn new(contents: Contents, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            start: contents.clone(),
            now: contents,
            events: Vec::new(),
            fault: None,
            can_punch: true,
            hook: None,
            random: Random(seed),
        })))
    }

    pub(crate) fn file(&self, which: Which) -> SimStorage {
        SimStorage {
            disk: self.clone(),
            which,
        }
    }

    /// Fails the call that comes after `calls` others.
    pub(crate) fn fail_after(&self, calls: u32, failure: Failure) {
        self.0.lock().fault = Some((calls, failure));
    }

    /// Makes this a filesystem that can't punch.
    pub(crate) fn forbid_punching(&self) {
        self.0.lock().can_punch = false;
    }

    pub(crate) fn heal(&self) {
        self.0.lock().fault = None;
    }

    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        self.0.lock().hook = hook;
    }

    /// Adds what the test was told to the history.
    pub(crate) fn note(&self, told: Told) {
        self.0.lock().events.push(Event::Told(told));
    }

    /// What reading gives now.
    pub(crate) fn now(&self) -> Contents {
        self.0.lock().now.clone()
    }

    pub(crate) fn history(&self) -> History {
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
pub(crate) struct SimStorage {
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
        content.read(offset, buf);
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
        let part = bytes[..part(bytes.len(), &mut state.random)].to_vec();
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

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES) && bytes.is_multiple_of(BLOCK_BYTES) && bytes > 0
        );
        let which = self.which;
        self.disk.run_hook(which, true);
        let result = {
            let mut state = self.disk.0.lock();
            let sectors = offset / 512..(offset + bytes) / 512;
            if !state.can_punch {
                Err(io::ErrorKind::Unsupported.into())
            } else if let Some(failure) = state.fails() {
                let part = state.random.below(bytes / 512 + 1);
                let sectors = sectors.start..sectors.start + part;
                state.happen(Event::Punch { which, sectors });
                if failure == Failure::Disk {
                    state.happen(Event::Broken);
                }
                Err(failure.error())
            } else {
                state.happen(Event::Punch { which, sectors });
                Ok(())
            }
        };
        self.disk.run_hook(which, false);
        result
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
pub(crate) struct History {
    pub(crate) start: Contents,
    pub(crate) events: Vec<Event>,
}

impl History {
    /// What a process that died during the event `end` leaves: all before, and a part of that one.
    pub(crate) fn process_crash(&self, end: usize, random: &mut Random) -> Contents {
        let mut contents = self.start.clone();
        for event in &self.events[..end] {
            contents.apply(event);
        }
        match self.events.get(end) {
            Some(Event::Write {
                which,
                offset,
                bytes,
            }) => {
                let bytes = &bytes[..part(bytes.len(), random)];
                contents.of(*which).write(*offset, bytes);
            }
            Some(Event::Punch { which, sectors }) => {
                let part = random.below(sectors.end - sectors.start + 1);
                contents
                    .of(*which)
                    .punch(sectors.start..sectors.start + part);
            }
            _ => {}
        }
        contents
    }

    /// What a machine that died after the first `end` events leaves: what was synchronized, and of the
    /// rest, for every sector by itself, its old content or that after any write since. With `tears`,
    /// sectors may also be torn.
    pub(crate) fn power_cut(&self, end: usize, random: &mut Random, tears: bool) -> Contents {
        let mut contents = self.start.clone();
        for which in Which::ALL {
            let content = std::mem::take(contents.of(which));
            *contents.of(which) = self.power_cut_of(which, content, end, random, tears);
        }
        contents
    }

    fn power_cut_of(
        &self,
        which: Which,
        mut now: Content,
        end: usize,
        random: &mut Random,
        tears: bool,
    ) -> Content {
        let mut durable = now.clone();
        let mut versions: BTreeMap<u64, Vec<Sector>> = BTreeMap::new();
        let mut lens = vec![now.len];
        for event in &self.events[..end] {
            let touched = match event {
                Event::Write {
                    which: w,
                    offset,
                    bytes,
                } if *w == which => {
                    now.write(*offset, bytes);
                    offset / 512..(offset + widen(bytes.len())).div_ceil(512)
                }
                Event::Punch { which: w, sectors } if *w == which => {
                    // Of the others nothing changes.
                    for (sector, _) in now.sectors.range(sectors.clone()) {
                        versions.entry(*sector).or_default().push([0; SECTOR]);
                    }
                    now.punch(sectors.clone());
                    0..0
                }
                Event::SetLen { which: w, len } if *w == which => {
                    now.set_len(*len);
                    0..0
                }
                Event::Synced { which: w } if *w == which => {
                    durable = now.clone();
                    versions.clear();
                    lens.clear();
                    0..0
                }
                Event::Lost { which: w, left } if *w == which => {
                    now = left.clone();
                    durable = left.clone();
                    versions.clear();
                    lens.clear();
                    0..0
                }
                _ => 0..0,
            };
            for sector in touched {
                versions.entry(sector).or_default().push(now.sector(sector));
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
        durable.set_len(len);
        durable
    }
}

/// How much of a write happens when it is cut short. What is of whole sectors is cut between them: a page
/// is copied whole or not at all.
fn part(bytes: usize, random: &mut Random) -> usize {
    if bytes.is_multiple_of(SECTOR) {
        narrow(random.below(widen(bytes / SECTOR) + 1)) * SECTOR
    } else {
        narrow(random.below(widen(bytes) + 1))
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
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}
