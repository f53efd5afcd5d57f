//! Whole lives of a device on a simulated disk: schedules of fills, synchronizations, failures and
//! crashes, and after each of them every state of the files that a crash at any moment could leave.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::bits::narrow;
use super::super::blocks::Blocks;
use super::super::format::{BLOCK_BYTES, BootId, Distrust, Identity};
use super::super::map::Map;
use super::super::sim::{
    Content, Contents, Disk, Event, Failure, History, Hook, Random, SimStorage, Told, Which,
};
use super::super::storage::{FileStorage, Storage};
use crate::error::WriteError;
use crate::key::DeviceKey;

pub(super) type SimBlocks = Blocks<SimStorage>;

/// Three sectors of bits per area, the last word of them in part.
const BLOCKS: u64 = 2 * 63 * 64 + 70;

const IDENTITY: Identity = Identity {
    key: DeviceKey([7; 32]),
    bytes: BLOCKS * BLOCK_BYTES,
    inode: 42,
    born_ns: 1_000,
};

fn boot(number: u64) -> BootId {
    BootId::new(&format!("boot {number}"))
}

/// What block `block` must hold.
fn block_bytes(block: u64) -> Vec<u8> {
    (block + 1).to_le_bytes().repeat(512)
}

fn range_bytes(blocks: &Range<u64>) -> Vec<u8> {
    blocks.clone().flat_map(block_bytes).collect()
}

fn byte_range(blocks: &Range<u64>) -> Range<u64> {
    blocks.start * BLOCK_BYTES..blocks.end * BLOCK_BYTES
}

pub(super) fn holds(data: &Content, block: u64) -> bool {
    let bytes = block_bytes(block);
    (0..8).all(|sector| data.sector(block * 8 + sector) == bytes[..512])
}

pub(super) fn present(blocks: &SimBlocks) -> Vec<u64> {
    let end = blocks.bytes();
    let mut present = Vec::new();
    let mut start = 0;
    for run in blocks.missing(0..end).iter().chain([&(end..end)]) {
        present.extend(start / BLOCK_BYTES..run.start / BLOCK_BYTES);
        start = run.end;
    }
    present
}

/// Opens the device as the store does.
fn open(disk: &Disk, boot: BootId) -> Result<SimBlocks, Distrust> {
    let map = Map::new(disk.file(Which::Map), IDENTITY);
    let loaded = map.load().unwrap()?;
    let data = disk.file(Which::Data);
    let (blocks, _) = Blocks::open(Path::new("sim"), data, map, loaded, boot, true).unwrap();
    Ok(blocks)
}

fn create(disk: &Disk, boot: BootId) -> SimBlocks {
    let map = Map::new(disk.file(Which::Map), IDENTITY);
    Blocks::create(Path::new("sim"), disk.file(Which::Data), map, boot).unwrap()
}

pub(super) fn fill(blocks: &SimBlocks, disk: &Disk, filled: &Range<u64>) -> Result<(), WriteError> {
    disk.note(Told::Filling(filled.clone()));
    blocks.fill(filled.start * BLOCK_BYTES, &range_bytes(filled))?;
    disk.note(Told::Marked(filled.clone()));
    Ok(())
}

pub(super) fn sync(blocks: &SimBlocks, disk: &Disk) -> Result<(), WriteError> {
    let promised = present(blocks);
    blocks.sync()?;
    disk.note(Told::Durable(promised));
    Ok(())
}

pub(super) fn punch(
    blocks: &SimBlocks,
    disk: &Disk,
    punched: &[Range<u64>],
) -> Result<u64, WriteError> {
    disk.note(Told::Punching(punched.to_vec()));
    let ranges: Vec<_> = punched.iter().map(byte_range).collect();
    let bytes = blocks.punch(&ranges)?;
    disk.note(Told::Punched(punched.to_vec()));
    Ok(bytes)
}

/// What was promised.
#[derive(Debug, Clone, Default)]
struct Promises {
    /// Blocks that count under the same boot.
    marked: BTreeSet<u64>,
    /// Blocks that count under any.
    durable: BTreeSet<u64>,
    /// Blocks that are present under none.
    gone: Vec<Range<u64>>,
}

/// A range without another.
fn without(range: &Range<u64>, other: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(other.start),
        range.start.max(other.end)..range.end,
    ]
}

/// What the first `end` events promised.
fn promised(history: &History, end: usize) -> Promises {
    let mut promises = Promises::default();
    let Promises {
        marked,
        durable,
        gone,
    } = &mut promises;
    let mut is_failing = false;
    for event in &history.events[..end] {
        match event {
            Event::Told(Told::Filling(blocks)) => {
                let left = gone.iter().flat_map(|gone| without(gone, blocks));
                *gone = left.filter(|left| !left.is_empty()).collect();
            }
            Event::Told(Told::Marked(blocks)) => marked.extend(blocks.clone()),
            Event::Told(Told::Durable(blocks)) => durable.extend(blocks.iter().copied()),
            Event::Told(Told::Punching(ranges)) => {
                for blocks in ranges {
                    marked.retain(|block| !blocks.contains(block));
                    durable.retain(|block| !blocks.contains(block));
                }
            }
            Event::Told(Told::Punched(ranges)) => gone.extend(ranges.iter().cloned()),
            Event::Lost { .. } | Event::Broken => is_failing = true,
            // The note that the device is poisoned: what is not durable counts no more.
            event if is_failing && is_note(event) => {
                is_failing = false;
                marked.clear();
            }
            _ => {}
        }
    }
    if is_failing {
        marked.clear();
    }
    marked.extend(durable.iter());
    promises
}

/// Whether the first `end` events stop between the failure of a disk and the note of it in the map's
/// header. A process killed in these microseconds takes its knowledge of the failure with it: this is
/// the one crash that is not survived, of a disk that fails and a process that is killed at once.
fn is_between_failure_and_note(history: &History, end: usize) -> bool {
    let failed = |event: &Event| matches!(event, Event::Lost { .. } | Event::Broken);
    let last_failure = history.events[..end].iter().rposition(failed);
    last_failure.is_some_and(|at| !history.events[at..end].iter().any(is_note))
}

/// Whether an event changes the map's header, or destroys the map.
fn is_note(event: &Event) -> bool {
    matches!(
        event,
        Event::Write {
            which: Which::Map,
            offset: 0,
            ..
        } | Event::SetLen { .. }
    )
}

/// Opens what a crash left, and says what is wrong with it.
fn check_left(
    left: Contents,
    boot: BootId,
    required: &BTreeSet<u64>,
    gone: &[Range<u64>],
) -> Result<(), TestCaseError> {
    let data = left.data.clone();
    let disk = Disk::new(left, 0);
    let blocks = match open(&disk, boot) {
        Ok(blocks) => present(&blocks),
        Err(_) => Vec::new(),
    };
    for block in &blocks {
        prop_assert!(
            holds(&data, *block),
            "block {block} is present without its data"
        );
    }
    let blocks: BTreeSet<u64> = blocks.into_iter().collect();
    for block in required {
        prop_assert!(blocks.contains(block), "block {block} is lost");
    }
    for gone in gone {
        let back = blocks.range(gone.clone()).next();
        prop_assert!(back.is_none(), "block {back:?} came back");
    }
    // What opening wrote says the same to the next one.
    if let Ok(again) = open(&disk, boot) {
        prop_assert_eq!(present(&again).into_iter().collect::<BTreeSet<_>>(), blocks);
    }
    Ok(())
}

/// Crashes at every event of a history, in every way.
fn check_crashes(history: &History, now: u64, random: &mut Random) -> Result<(), TestCaseError> {
    for end in 0..=history.events.len() {
        let Promises {
            marked,
            durable,
            gone,
        } = promised(history, end);
        let at = |error: TestCaseError, kind: &str| {
            let before = end.saturating_sub(6);
            let last = summary(&history.events[before..end]);
            TestCaseError::fail(format!("{kind} after event {end}, {last}: {error}"))
        };
        if !is_between_failure_and_note(history, end) {
            let left = history.process_crash(end, random);
            check_left(left, boot(now), &marked, &gone).map_err(|e| at(e, "process crash"))?;
        }
        for _ in 0..2 {
            let left = history.power_cut(end, random, false);
            check_left(left, boot(now + 1), &durable, &gone).map_err(|e| at(e, "power cut"))?;
        }
        let left = history.power_cut(end, random, true);
        check_left(left, boot(now + 1), &BTreeSet::new(), &gone)
            .map_err(|e| at(e, "torn sectors"))?;
    }
    Ok(())
}

fn summary(events: &[Event]) -> String {
    let word = |event: &Event| match event {
        Event::Write {
            which,
            offset,
            bytes,
        } => format!("{which:?} {offset}+{}", bytes.len()),
        Event::SetLen { which, len } => format!("{which:?} has length {len}"),
        Event::Lost { which, .. } => format!("{which:?} lost"),
        other => format!("{other:?}"),
    };
    events.iter().map(word).collect::<Vec<_>>().join("; ")
}

#[derive(Debug, Clone)]
enum Step {
    Fill(Range<u64>),
    /// Data that is never marked.
    WriteOnly(Range<u64>),
    Sync,
    /// Somebody fills while a synchronization is under way.
    SyncWhileFilling {
        filled: Range<u64>,
        which: Which,
        before: bool,
    },
    Punch(Vec<Range<u64>>),
    /// Somebody fills other blocks while some are punched.
    PunchWhileFilling {
        punched: Vec<Range<u64>>,
        filled: Range<u64>,
        which: Which,
        before: bool,
    },
    FailAfter(u32, Failure),
    /// The process dies, the next one of the same boot opens the device.
    ProcessCrash,
    PowerCut,
}

fn some_blocks() -> impl Strategy<Value = Range<u64>> {
    // Around the ends of words, sectors and the device, where mistakes are.
    let near = prop_oneof![
        Just(0_u64),
        Just(62),
        Just(4030),
        Just(8062),
        Just(BLOCKS - 4)
    ];
    (near, 0_u64..4, 1_u64..5).prop_map(|(near, skip, count)| {
        let start = near + skip;
        start..(start + count).min(BLOCKS)
    })
}

/// Ranges in any order, which may overlap, and sometimes all.
fn some_ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    prop_oneof![
        8 => prop::collection::vec(some_blocks(), 0..4),
        1 => Just(std::iter::once(0..BLOCKS).collect()),
    ]
}

fn some_step() -> impl Strategy<Value = Step> {
    let which = || prop_oneof![Just(Which::Data), Just(Which::Map)];
    let failure = prop_oneof![Just(Failure::NoSpace), Just(Failure::Disk)];
    prop_oneof![
        6 => some_blocks().prop_map(Step::Fill),
        1 => some_blocks().prop_map(Step::WriteOnly),
        3 => Just(Step::Sync),
        2 => (some_blocks(), which(), any::<bool>())
            .prop_map(|(filled, which, before)| Step::SyncWhileFilling { filled, which, before }),
        2 => some_ranges().prop_map(Step::Punch),
        2 => (some_ranges(), some_blocks(), which(), any::<bool>()).prop_map(
            |(punched, filled, which, before)| Step::PunchWhileFilling {
                punched, filled, which, before
            }
        ),
        1 => (0_u32..6, failure).prop_map(|(calls, failure)| Step::FailAfter(calls, failure)),
        1 => Just(Step::ProcessCrash),
        1 => Just(Step::PowerCut),
    ]
}

/// A device in the middle of a schedule.
struct World {
    disk: Disk,
    boot: u64,
    blocks: Arc<SimBlocks>,
    random: Random,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut contents = Contents::default();
        contents.data.len = IDENTITY.bytes;
        let disk = Disk::new(contents, seed);
        let blocks = Arc::new(create(&disk, boot(0)));
        Self {
            disk,
            boot: 0,
            blocks,
            random: Random(seed),
        }
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let result = match step {
            Step::Fill(blocks) => fill(&self.blocks, &self.disk, &blocks),
            Step::WriteOnly(blocks) => self
                .blocks
                .write(byte_range(&blocks).start, &range_bytes(&blocks)),
            Step::Sync => sync(&self.blocks, &self.disk),
            Step::SyncWhileFilling {
                filled,
                which,
                before,
            } => {
                self.fill_during(filled, which, before);
                let result = sync(&self.blocks, &self.disk);
                self.disk.set_hook(None);
                result
            }
            Step::Punch(punched) => punch(&self.blocks, &self.disk, &punched).map(drop),
            Step::PunchWhileFilling {
                punched,
                filled,
                which,
                before,
            } => {
                // Who punches sees to it that nobody fills the same blocks.
                let touches = |it: &Range<u64>| it.start < filled.end && filled.start < it.end;
                if !punched.iter().any(touches) {
                    self.fill_during(filled, which, before);
                }
                let result = punch(&self.blocks, &self.disk, &punched);
                self.disk.set_hook(None);
                result.map(drop)
            }
            Step::FailAfter(calls, failure) => {
                self.disk.fail_after(calls, failure);
                Ok(())
            }
            Step::ProcessCrash => self.reopen(false)?,
            Step::PowerCut => self.reopen(true)?,
        };
        match result {
            Ok(()) | Err(WriteError::NoSpace { .. }) => {}
            Err(WriteError::Failed { .. } | WriteError::Poisoned { .. }) => {
                prop_assert!(self.blocks.is_poisoned());
            }
            Err(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
        }
        let data = self.disk.now().data;
        for block in present(&self.blocks) {
            prop_assert!(
                holds(&data, block),
                "block {block} is shown without its data"
            );
        }
        Ok(())
    }

    /// Fills blocks in the middle of what is done next.
    fn fill_during(&self, filled: Range<u64>, which: Which, before: bool) {
        let (blocks, disk) = (Arc::clone(&self.blocks), self.disk.clone());
        let action = Box::new(move || drop(fill(&blocks, &disk, &filled)));
        self.disk.set_hook(Some(Hook {
            which,
            before,
            action,
        }));
    }

    /// Checks every crash of this life, then begins another with what one at its end leaves.
    fn reopen(&mut self, is_power_cut: bool) -> Result<Result<(), WriteError>, TestCaseError> {
        self.disk.heal();
        let history = self.disk.history();
        check_crashes(&history, self.boot, &mut self.random)?;
        let end = history.events.len();
        let left = if is_power_cut {
            self.boot += 1;
            history.power_cut(end, &mut self.random, false)
        } else {
            history.process_crash(end, &mut self.random)
        };
        let Promises {
            marked,
            durable,
            gone,
        } = promised(&history, end);
        let expected = if is_power_cut { durable } else { marked };
        if is_power_cut {
            self.disk = Disk::new(left, self.random.below(u64::MAX));
        }
        // After a crash of the process alone the page cache goes on, and so does the history: what was
        // not durable still is not.
        self.blocks = Arc::new(match open(&self.disk, boot(self.boot)) {
            Ok(blocks) => blocks,
            Err(_) => {
                prop_assert!(expected.is_empty());
                let mut contents = self.disk.now();
                contents.map = Content::default();
                self.disk = Disk::new(contents, self.random.below(u64::MAX));
                create(&self.disk, boot(self.boot))
            }
        });
        let found: BTreeSet<u64> = present(&self.blocks).into_iter().collect();
        prop_assert!(found.is_superset(&expected));
        let is_back = |gone: &Range<u64>| found.range(gone.clone()).next().is_some();
        prop_assert!(!gone.iter().any(is_back));
        Ok(Ok(()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2500))]

    #[test]
    fn no_crash_shows_a_block_without_its_data_or_loses_a_promised_one(
        seed in any::<u64>(),
        steps in prop::collection::vec(some_step(), 1..24),
    ) {
        let mut world = World::new(seed);
        for step in steps {
            world.run(step)?;
        }
        world.run(Step::PowerCut)?;
    }
}

pub(super) fn new_world() -> (Disk, SimBlocks) {
    let mut contents = Contents::default();
    contents.data.len = IDENTITY.bytes;
    let disk = Disk::new(contents, 1);
    let blocks = create(&disk, boot(0));
    (disk, blocks)
}

#[test]
fn each_call_of_a_fill_and_a_synchronization_may_fail() {
    for failure in [Failure::NoSpace, Failure::Disk] {
        for calls in 0..12 {
            let (disk, blocks) = new_world();
            fill(&blocks, &disk, &(0..3)).unwrap();
            sync(&blocks, &disk).unwrap();
            disk.fail_after(calls, failure);
            let results = [
                fill(&blocks, &disk, &(4030..4036)),
                sync(&blocks, &disk),
                fill(&blocks, &disk, &(5..6)),
            ];
            let failed = results.iter().any(Result::is_err);
            assert_eq!(failed, calls < 7, "{calls} {results:?}");
            assert!(blocks.is_present(byte_range(&(0..3))));
            let data = disk.now().data;
            assert!(present(&blocks).iter().all(|block| holds(&data, *block)));
            if failure == Failure::NoSpace && !blocks.is_poisoned() {
                disk.heal();
                fill(&blocks, &disk, &(4030..4036)).unwrap();
                sync(&blocks, &disk).unwrap();
                fill(&blocks, &disk, &(5..6)).unwrap();
                assert_eq!(present(&blocks).len(), 10);
            }
            check_crashes(&disk.history(), 0, &mut Random(u64::from(calls))).unwrap();
        }
    }
}

#[test]
fn a_full_disk_leaves_the_device_usable() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    disk.fail_after(0, Failure::NoSpace);
    let error = fill(&blocks, &disk, &(1..2)).unwrap_err();
    assert!(matches!(error, WriteError::NoSpace { .. }), "{error:?}");
    assert!(!blocks.is_poisoned());
    assert_eq!(present(&blocks), vec![0]);
    fill(&blocks, &disk, &(1..2)).unwrap();
    assert_eq!(present(&blocks), vec![0, 1]);
}

#[test]
fn a_failed_synchronization_takes_back_what_was_not_durable() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    sync(&blocks, &disk).unwrap();
    fill(&blocks, &disk, &(1..2)).unwrap();
    disk.fail_after(0, Failure::Disk);
    assert!(matches!(
        sync(&blocks, &disk),
        Err(WriteError::Failed { .. })
    ));
    assert!(blocks.is_poisoned());
    assert_eq!(present(&blocks), vec![0]);
    assert_eq!(blocks.bytes_present(), BLOCK_BYTES);
    // The disk is well again, but this device has seen too much.
    for result in [
        sync(&blocks, &disk),
        blocks.write(0, &block_bytes(0)),
        blocks.mark_present(0..1),
    ] {
        assert!(
            matches!(result, Err(WriteError::Poisoned { .. })),
            "{result:?}"
        );
    }
    let next = open(&disk, boot(0)).unwrap();
    assert!(!next.is_poisoned());
    assert_eq!(present(&next), vec![0]);
    fill(&next, &disk, &(1..2)).unwrap();
    assert_eq!(present(&open(&disk, boot(0)).unwrap()), vec![0, 1]);
}

#[test]
fn a_map_whose_failure_can_not_be_noted_is_destroyed() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    let again = disk.clone();
    // The synchronization fails, and then the header's write.
    disk.fail_after(0, Failure::Disk);
    disk.set_hook(Some(Hook {
        which: Which::Data,
        before: false,
        action: Box::new(move || again.fail_after(0, Failure::Disk)),
    }));
    assert!(sync(&blocks, &disk).is_err());
    assert_eq!(open(&disk, boot(0)).unwrap_err(), Distrust::Length);
}

#[test]
fn volatile_bits_are_not_believed_against_other_knowledge() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    sync(&blocks, &disk).unwrap();
    fill(&blocks, &disk, &(1..2)).unwrap();
    let map = Map::new(disk.file(Which::Map), IDENTITY);
    let loaded = map.load().unwrap().unwrap();
    let data = disk.file(Which::Data);
    let (next, found) = Blocks::open(Path::new("sim"), data, map, loaded, boot(0), false).unwrap();
    assert_eq!(present(&next), vec![0]);
    assert_eq!(found.lost_blocks, 1);
    assert_eq!(present(&open(&disk, boot(0)).unwrap()), vec![0]);
}

#[test]
fn a_synchronization_without_news_touches_no_disk() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    blocks.sync().unwrap();
    let events = disk.history().events.len();
    blocks.sync().unwrap();
    blocks.mark_present(0..BLOCK_BYTES).unwrap();
    assert_eq!(disk.history().events.len(), events);
}

#[test]
fn durable_bits_that_a_killed_process_wrote_are_made_durable_by_the_next() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    sync(&blocks, &disk).unwrap();
    let history = disk.history();
    // Killed after it wrote the durable bits, before it made them durable.
    let end = history
        .events
        .iter()
        .rposition(|event| matches!(event, Event::Synced { which: Which::Map }))
        .unwrap();
    let left = history.process_crash(end, &mut Random(0));
    let disk = Disk::new(left, 0);
    let next = open(&disk, boot(0)).unwrap();
    next.sync().unwrap();
    let events = disk.history().events;
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Synced { which: Which::Map }))
    );
}

#[test]
fn a_sector_in_another_place_is_not_believed() {
    let (disk, blocks) = new_world();
    for block in [0, 4_033, 8_066] {
        fill(&blocks, &disk, &(block..block + 1)).unwrap();
    }
    sync(&blocks, &disk).unwrap();
    let good = disk.now();
    // The sectors of both areas: the header is the first of eight, each area is padded to eight.
    let places = [8, 9, 10, 16, 17, 18];
    for (from, to) in places.iter().flat_map(|from| places.map(|to| (*from, to))) {
        let mut bad = good.clone();
        bad.map.sectors.insert(to, good.map.sector(from));
        check_left(bad, boot(0), &BTreeSet::new(), &[]).unwrap();
    }
}

#[test]
fn a_volatile_sector_in_the_place_of_a_durable_one_is_not_believed() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..1)).unwrap();
    let mut bad = disk.now();
    bad.map.sectors.insert(8, bad.map.sector(16));
    let opened = open(&Disk::new(bad, 0), boot(1)).unwrap();
    assert!(present(&opened).is_empty());
}

proptest! {
    #[test]
    fn a_map_of_any_content_shows_nothing_that_is_not_there(
        changes in prop::collection::vec((0_u64..12_288, any::<u8>()), 1..200),
        boots in 0_u64..2,
    ) {
        let (disk, blocks) = new_world();
        fill(&blocks, &disk, &(4_030..4_034)).unwrap();
        blocks.sync().unwrap();
        let mut bad = disk.now();
        for (offset, byte) in changes {
            let sector = bad.map.sectors.entry(offset / 512).or_insert([0; 512]);
            sector[narrow(offset % 512)] = byte;
        }
        check_left(bad, boot(boots), &BTreeSet::new(), &[])?;
    }
}

#[test]
fn bits_of_another_boot_never_come_back() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..2)).unwrap();
    assert_eq!(present(&open(&disk, boot(1)).unwrap()), Vec::<u64>::new());
    assert_eq!(present(&open(&disk, boot(0)).unwrap()), Vec::<u64>::new());
}

#[test]
fn a_chunk_ends_in_zeros_and_a_range_ends_at_a_block() {
    let (disk, blocks) = new_world();
    blocks.write(0, &[0xFF; 8192]).unwrap();
    blocks.write(0, &[1; 4097]).unwrap();
    blocks.mark_present(0..4097).unwrap();
    assert!(blocks.is_present(0..8192));
    assert!(!blocks.is_present(0..8193));
    let mut read = vec![9; 8192];
    disk.file(Which::Data).read_at(0, &mut read).unwrap();
    assert!(read[..4097].iter().all(|byte| *byte == 1));
    assert!(read[4097..].iter().all(|byte| *byte == 0));
}

#[test]
fn ranges_outside_the_device_are_refused_or_empty() {
    let (_, blocks) = new_world();
    let end = blocks.bytes();
    for (start, bytes) in [
        (1, 1),
        (end, 1),
        (end - BLOCK_BYTES, 4097),
        (u64::MAX - 4095, 4096),
    ] {
        let data = vec![0; bytes];
        for result in [
            blocks.write(start, &data),
            blocks.mark_present(start..start.saturating_add(data.len().try_into().unwrap())),
        ] {
            assert!(
                matches!(result, Err(WriteError::OutOfRange { .. })),
                "{start} {result:?}"
            );
        }
    }
    blocks.write(end, &[]).unwrap();
    blocks.mark_present(end..end).unwrap();
    assert!(blocks.is_present(end..u64::MAX) && blocks.is_present(5..5));
    assert_eq!(blocks.missing(end..u64::MAX), vec![]);
    assert_eq!(
        blocks.missing(end - 1..u64::MAX),
        vec![end - BLOCK_BYTES..end]
    );
    assert!(!blocks.is_present(end - 1..u64::MAX));
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "what a hostile event might hold"
    )]
    let reversed = 8192..4096;
    assert!(blocks.is_present(reversed.clone()));
    assert!(blocks.mark_present(reversed).is_err());
}

#[test]
fn every_storage_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.path().join("file"))
        .unwrap()
        .into_parts();
    let (dir_file, _) = fs_err::File::open(dir.path()).unwrap().into_parts();
    check_storage(&FileStorage::new(file, Arc::new(dir_file)));
    check_storage(&Disk::new(Contents::default(), 0).file(Which::Data));
}

fn check_storage(storage: &impl Storage) {
    let read = |offset, bytes: usize| {
        let mut buf = vec![0xEE; bytes];
        storage.read_at(offset, &mut buf).map(|()| buf)
    };
    assert_eq!(storage.len().unwrap(), 0);
    assert_eq!(
        read(0, 1).unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    storage.write_at(1024, &[1; 512]).unwrap();
    assert_eq!(storage.len().unwrap(), 1536);
    assert_eq!(read(0, 1024).unwrap(), vec![0; 1024]);
    assert_eq!(read(1000, 48).unwrap(), [vec![0; 24], vec![1; 24]].concat());
    storage.set_len(1024).unwrap();
    storage.set_len(4096).unwrap();
    assert_eq!(read(1024, 3072).unwrap(), vec![0; 3072]);
    assert_eq!(read(4096, 0).unwrap(), Vec::<u8>::new());
    storage.sync_data().unwrap();
    storage.sync_data().unwrap();
    assert_eq!(storage.len().unwrap(), 4096);
}

#[test]
fn the_first_block_of_each_word_and_sector_has_its_own_bit() {
    let (disk, blocks) = new_world();
    let edges = [0, 63, 64, 4031, 4032, 8063, 8064, BLOCKS - 1];
    for block in edges {
        fill(&blocks, &disk, &(block..block + 1)).unwrap();
    }
    assert_eq!(present(&blocks), edges);
    assert_eq!(present(&open(&disk, boot(0)).unwrap()), edges);
    sync(&blocks, &disk).unwrap();
    assert_eq!(present(&open(&disk, boot(1)).unwrap()), edges);
    assert_eq!(narrow(blocks.bytes_durable() / BLOCK_BYTES), edges.len());
}
