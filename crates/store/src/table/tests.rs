//! Tables and twins on a simulated disk: what a crash at any moment leaves of them is either not believed
//! or true.

use draught_digest::Digest;
use proptest::prelude::*;

use super::format::{RECORD_BYTES, offset_of};
use super::{TableChunk, TableFile, Twins, check_chunks};
use crate::device::sim::{Contents, Disk, Event, History, Random, SimStorage, Told, Which};
use crate::device::{BLOCK_BYTES, Storage as _, narrow, widen};
use crate::key::DeviceKey;

const KEY: DeviceKey = DeviceKey([7; 32]);

/// So many chunks, with gaps between some.
fn chunks(count: u32) -> Vec<TableChunk> {
    let mut place = 0;
    let numbers = 0..count;
    let chunk = |number: u32| {
        let chunk = TableChunk {
            place,
            bytes: 1 + number * 977 % 20_000,
            digest: Digest::sha256(&number.to_le_bytes()),
        };
        place = chunk.end().next_multiple_of(BLOCK_BYTES) + u64::from(number % 3) * BLOCK_BYTES;
        chunk
    };
    numbers.map(chunk).collect()
}

/// The same by the other algorithm.
fn twin(chunk: &TableChunk) -> TableChunk {
    let digest = Digest::blake3(&chunk.place.to_le_bytes());
    TableChunk { digest, ..*chunk }
}

fn open(disk: &Disk) -> Option<TableFile<SimStorage>> {
    TableFile::open(disk.file(Which::Table), &KEY).unwrap().ok()
}

fn open_twins(disk: &Disk, table: &TableFile<SimStorage>) -> Twins<SimStorage> {
    Twins::open(disk.file(Which::Twins), table).unwrap()
}

fn believed_twins(twins: &Twins<SimStorage>) -> Vec<(u32, TableChunk)> {
    let mut all = Vec::new();
    twins
        .for_each(|records| all.extend(records.iter().map(|it| (it.number, it.chunk))))
        .unwrap();
    all
}

/// Writes a table, then twins of some of its chunks in batches; with synchronizations in between.
fn live(seed: u64, all: &[TableChunk], batches: &[(u8, bool)]) -> (Disk, Vec<TableChunk>) {
    let disk = Disk::new(Contents::default(), seed);
    let end = check_chunks(all).unwrap();
    let file = disk.file(Which::Table);
    TableFile::write(&file, &KEY, end, all).unwrap();
    file.sync_data().unwrap();
    disk.note(Told::TableDurable);
    let table = open(&disk).unwrap();
    let mut learned = Vec::new();
    let mut rest = all;
    for (count, sync) in batches {
        let (batch, later) = rest.split_at(usize::from(*count).min(rest.len()));
        rest = later;
        // Opened anew each time, as it is used.
        let batch: Vec<_> = batch.iter().map(twin).collect();
        let first = open_twins(&disk, &table).append(&batch).unwrap();
        assert_eq!(narrow(u64::from(first)), learned.len());
        learned.extend(batch);
        disk.note(Told::Learned(learned.len()));
        if *sync {
            disk.file(Which::Twins).sync_data().unwrap();
        }
    }
    (disk, learned)
}

/// What is believed of what a crash left must be true; and a process that died takes nothing with it.
fn check_left(
    left: Contents,
    all: &[TableChunk],
    learned: &[TableChunk],
    (is_durable, known): (bool, usize),
) -> Result<(), TestCaseError> {
    let disk = Disk::new(left, 0);
    let Some(table) = open(&disk) else {
        prop_assert!(!is_durable, "a durable table is lost");
        return Ok(());
    };
    let read = table.chunks().unwrap();
    prop_assert!(
        !is_durable || read.is_ok(),
        "a durable table is not believed"
    );
    if let Ok(read) = &read {
        prop_assert_eq!(read, all);
    }
    // One by one, as whoever looks for a chunk reads them.
    for chunk in all {
        if let Some(found) = table.at(chunk.place).unwrap() {
            prop_assert_eq!(found, *chunk);
        }
    }
    if read.is_err() {
        return Ok(());
    }
    let mut twins = open_twins(&disk, &table);
    let believed = believed_twins(&twins);
    for (number, chunk) in &believed {
        prop_assert_eq!(Some(chunk), learned.get(narrow(u64::from(*number))));
    }
    prop_assert!(believed.len() >= known, "{} of {known}", believed.len());
    // Life goes on: what is learned now is there afterwards.
    let more: Vec<_> = all.iter().take(3).map(twin).collect();
    let first = twins.append(&more).unwrap();
    let again = believed_twins(&open_twins(&disk, &table));
    for (number, chunk) in (first..).zip(&more) {
        prop_assert!(again.contains(&(number, *chunk)));
    }
    Ok(())
}

fn told(history: &History, end: usize) -> (bool, usize) {
    let mut told = (false, 0);
    for event in &history.events[..end] {
        match event {
            Event::Told(Told::TableDurable) => told.0 = true,
            Event::Told(Told::Learned(count)) => told.1 = *count,
            _ => {}
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_a_crash_leaves_of_a_table_is_not_believed_or_true(
        seed in any::<u64>(),
        count in 1_u32..60,
        batches in prop::collection::vec((1_u8..20, any::<bool>()), 0..6),
    ) {
        let all = chunks(count);
        let (disk, learned) = live(seed, &all, &batches);
        let history = disk.history();
        let mut random = Random(seed);
        for end in 0..=history.events.len() {
            let (is_durable, known) = told(&history, end);
            let left = history.process_crash(end, &mut random);
            check_left(left, &all, &learned, (is_durable, known))?;
            for tears in [false, true] {
                let left = history.power_cut(end, &mut random, tears);
                check_left(left, &all, &learned, (is_durable && !tears, 0))?;
            }
        }
    }

    #[test]
    fn no_damage_makes_a_table_or_a_twin_say_what_is_not_true(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let all = chunks(40);
        let (disk, learned) = live(1, &all, &[(20, true), (20, true)]);
        for which in [Which::Table, Which::Twins] {
            let file = disk.file(which);
            let len = file.len().unwrap();
            for (at, byte) in &damage {
                file.write_at(widen(at.index(narrow(len))), &[*byte]).unwrap();
            }
            if is_cut {
                file.set_len(widen(cut.index(narrow(len)))).unwrap();
            }
        }
        check_left(disk.now(), &all, &learned, (false, 0))?;
    }
}

#[test]
fn a_table_is_that_of_its_device_only() {
    let (disk, _) = live(1, &chunks(5), &[]);
    let other = TableFile::open(disk.file(Which::Table), &DeviceKey([8; 32])).unwrap();
    assert!(other.is_err());
}

#[test]
fn records_in_other_places_are_not_believed() {
    let all = chunks(8);
    let (disk, _) = live(1, &all, &[(8, true)]);
    for which in [Which::Table, Which::Twins] {
        let file = disk.file(which);
        let [mut first, mut second] = [[0; RECORD_BYTES]; 2];
        file.read_at(offset_of(2), &mut first).unwrap();
        file.read_at(offset_of(5), &mut second).unwrap();
        file.write_at(offset_of(2), &second).unwrap();
        file.write_at(offset_of(5), &first).unwrap();
    }
    let table = open(&disk).unwrap();
    assert!(table.chunks().unwrap().is_err());
    let believed = believed_twins(&open_twins(&disk, &table));
    let numbers: Vec<u32> = believed.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 3, 4, 6, 7]);
}

#[test]
fn chunks_that_make_no_device_are_named() {
    let good = chunks(3);
    let bent = |change: fn(&mut TableChunk)| {
        let mut chunks = good.clone();
        change(&mut chunks[1]);
        check_chunks(&chunks).unwrap_err().to_string()
    };
    let messages = [
        bent(|chunk| chunk.bytes = 0),
        bent(|chunk| chunk.place += 1),
        bent(|chunk| chunk.place = 0),
        bent(|chunk| chunk.place = u64::MAX / BLOCK_BYTES * BLOCK_BYTES - BLOCK_BYTES),
    ];
    let reasons = [
        "no bytes",
        "at a block",
        "before the end",
        "past the largest",
    ];
    for (message, reason) in messages.iter().zip(reasons) {
        assert!(message.contains(reason), "{message}");
    }
}
