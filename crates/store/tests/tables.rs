//! Devices that know what belongs where on them, over real files.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[macro_use]
mod common;

use std::sync::Arc;

use common::{KEY, chunk, chunks, content, open};
use draught_digest::{Algorithm, Digest};
use draught_store::{BLOCK_BYTES, DEVICE_BYTES_MAX, DeviceError, DeviceKey, Found, TableChunk};
use draught_testkit::Scratch;

#[test]
fn a_table_is_there_for_good() {
    let scratch = Scratch::new();
    let table = chunks(0, 5);
    let end = table.last().unwrap().place + 2 * BLOCK_BYTES;
    {
        let store = open(scratch.path(), "boot");
        let device = store.create_device(&KEY, &table).unwrap();
        assert_eq!(device.bytes(), end);
        assert!(Arc::ptr_eq(&device, &store.open_device(&KEY).unwrap()));
        assert_eq!(store.table(&KEY).unwrap(), table);
        assert_matches!(
            store.create_device(&KEY, &table),
            Err(DeviceError::Exists { key: KEY })
        );
        assert_eq!(store.table(&KEY).unwrap(), table);
    }
    let store = open(scratch.path(), "other boot");
    assert_eq!(store.device_bytes(&KEY).unwrap(), end);
    assert_eq!(store.open_device(&KEY).unwrap().bytes(), end);
    assert_eq!(store.table(&KEY).unwrap(), table);
    store.remove_device(&KEY).unwrap();
    assert_eq!(store.usage().unwrap(), 0);
    for error in [
        store.open_device(&KEY).map(drop),
        store.table(&KEY).map(drop),
        store.device_bytes(&KEY).map(drop),
    ] {
        assert_matches!(error, Err(DeviceError::NoTable { key: KEY }));
    }
    assert_eq!(
        fs_err::read_dir(scratch.join("devices")).unwrap().count(),
        0
    );
}

#[test]
fn chunks_that_no_device_can_have_are_refused() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let digest = Digest::blake3(b"");
    let at = |place, bytes| TableChunk {
        place,
        bytes,
        digest,
    };
    for (table, wrong) in [
        (vec![at(0, 0)], 0),
        (vec![at(1, 1)], 0),
        (vec![at(0, 4097), at(4096, 1)], 1),
        (vec![at(4096, 1), at(0, 1)], 1),
        (vec![at(0, 1), at(0, 1)], 1),
        (vec![at(DEVICE_BYTES_MAX, 1)], 0),
        (vec![at(DEVICE_BYTES_MAX - 4096, 4097)], 0),
        (vec![at(u64::MAX - 4095, u32::MAX)], 0),
    ] {
        assert_matches!(
            store.create_device(&KEY, &table),
            Err(DeviceError::Chunk { index, .. }) if index == wrong
        );
    }
    assert_eq!(
        fs_err::read_dir(scratch.join("devices")).unwrap().count(),
        0
    );
    let empty = store.create_device(&KEY, &[]).unwrap();
    assert!(empty.bytes() == 0 && empty.is_complete());
    let last = [at(DEVICE_BYTES_MAX - 4096, 4096)];
    let largest = store.create_device(&DeviceKey([1; 32]), &last).unwrap();
    assert_eq!(largest.bytes(), DEVICE_BYTES_MAX);
}

#[test]
fn a_chunk_is_found_by_digest_and_size_and_by_nothing_else() {
    let scratch = Scratch::new();
    let table = chunks(0, 5);
    let wanted = |chunk: &TableChunk| (chunk.digest, chunk.bytes);
    let check = |store: &draught_store::Store| {
        let found = store.find(&[
            wanted(&table[3]),
            (table[3].digest, 1),
            (Digest::sha256(b"other"), 5_000),
            (
                Digest::new(Algorithm::Sha256, *table[3].digest.as_bytes()),
                table[3].bytes,
            ),
            wanted(&table[0]),
            wanted(&table[3]),
        ]);
        let at = |place| {
            vec![Found {
                device: KEY,
                place,
                present: false,
            }]
        };
        let (first, fourth) = (at(table[0].place), at(table[3].place));
        assert_eq!(
            found,
            [fourth.clone(), vec![], vec![], vec![], first, fourth]
        );
    };
    {
        let store = open(scratch.path(), "boot");
        store.create_device(&KEY, &table).unwrap();
        check(&store);
    }
    let store = open(scratch.path(), "boot");
    assert!(!store.index_stats().loaded);
    store.load_index();
    assert!(store.index_stats().loaded);
    assert_eq!(store.index_stats().chunks, 5);
    check(&store);
    store.remove_device(&KEY).unwrap();
    assert_eq!(store.find(&[wanted(&table[3])]), [vec![]]);
    assert_eq!(store.index_stats().chunks, 0);
}

#[test]
fn places_that_are_present_come_first() {
    let scratch = Scratch::new();
    let [one, two, three] = [1, 2, 3].map(|byte| DeviceKey([byte; 32]));
    let wanted = [(chunk(7, 0).digest, chunk(7, 0).bytes)];
    let order = |store: &draught_store::Store| -> Vec<(DeviceKey, bool)> {
        let found = store.find(&wanted);
        found[0].iter().map(|it| (it.device, it.present)).collect()
    };
    {
        let store = open(scratch.path(), "boot");
        for key in [one, two, three] {
            store.create_device(&key, &[chunk(7, 8192)]).unwrap();
        }
        assert_eq!(order(&store), [(one, false), (two, false), (three, false)]);
        let device = store.open_device(&three).unwrap();
        device.write(8192, &content(7)).unwrap();
        device.mark_present(8192..8193).unwrap();
        // One of its blocks is not enough.
        assert_eq!(order(&store), [(one, false), (two, false), (three, false)]);
        device.mark_present(8192..8192 + 5_000).unwrap();
        assert_eq!(order(&store), [(three, true), (one, false), (two, false)]);
        device.sync().unwrap();
        let device = store.open_device(&two).unwrap();
        device.write(8192, &content(7)).unwrap();
        device.mark_present(8192..8192 + 5_000).unwrap();
    }
    {
        let store = open(scratch.path(), "boot");
        assert_eq!(order(&store), [(two, true), (three, true), (one, false)]);
        assert!(store.open_devices().is_empty());
    }
    let store = open(scratch.path(), "other boot");
    assert_eq!(order(&store), [(three, true), (one, false), (two, false)]);
}
