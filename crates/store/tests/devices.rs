//! Devices over real files: what lives how long.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[macro_use]
mod common;

use std::sync::Arc;

use common::{BYTES, KEY, block_bytes, device, fill, open, present};
use draught_store::{BLOCK_BYTES, DEVICE_BYTES_MAX, DeviceError, DeviceKey, OpenError, WriteError};
use draught_testkit::Scratch;

#[test]
fn a_device_that_is_open_is_not_opened_twice() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let first = device(&store);
    assert!(Arc::ptr_eq(&first, &device(&store)));
    // Forgotten, but still held: a second one would overwrite its bits.
    store.forget(&KEY);
    assert!(Arc::ptr_eq(&first, &device(&store)));
    assert_eq!(store.open_devices().len(), 1);
    store.forget(&KEY);
    assert!(store.open_devices().is_empty());
    let path = first.path().to_owned();
    drop(first);
    let second = device(&store);
    assert_eq!(second.path(), path);
}

#[test]
fn all_bits_count_under_the_same_boot_and_durable_ones_under_any() {
    let scratch = Scratch::new();
    {
        let store = open(scratch.path(), "boot 1");
        let device = device(&store);
        assert!(present(&device).is_empty());
        fill(&device, 3..5);
        device.sync().unwrap();
        assert_eq!(device.bytes_durable(), 2 * BLOCK_BYTES);
        fill(&device, 9_998..10_000);
        assert_eq!(device.bytes_durable(), 2 * BLOCK_BYTES);
    }
    {
        // The boot id comes from a file that ends in a new line.
        let store = open(scratch.path(), "boot 1\n");
        assert_eq!(present(&device(&store)), [3, 4, 9_998, 9_999]);
    }
    {
        let store = open(scratch.path(), "boot 2");
        assert_eq!(present(&device(&store)), [3, 4]);
    }
    let store = open(scratch.path(), "boot 1");
    assert_eq!(present(&device(&store)), [3, 4]);
}

#[test]
fn a_device_knows_when_it_is_complete_and_when_that_is_durable() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let small = store.device(&KEY, 3 * BLOCK_BYTES).unwrap();
    fill(&small, 0..2);
    assert!(!small.is_complete());
    assert_eq!(small.missing(0..u64::MAX), vec![8192..12288]);
    fill(&small, 2..3);
    assert!(small.is_complete() && !small.is_durable());
    small.sync().unwrap();
    assert!(small.is_durable());
    let empty = store.device(&DeviceKey([1; 32]), 0).unwrap();
    assert!(empty.is_complete() && empty.is_durable());
    empty.sync().unwrap();
}

#[test]
fn the_largest_device_is_opened_and_no_larger_one() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    for bytes in [1, BLOCK_BYTES + 1, DEVICE_BYTES_MAX + BLOCK_BYTES, u64::MAX] {
        assert_matches!(store.device(&KEY, bytes), Err(DeviceError::Size { .. }));
    }
    let last = DEVICE_BYTES_MAX - BLOCK_BYTES;
    for _ in 0..2 {
        let device = store.device(&KEY, DEVICE_BYTES_MAX).unwrap();
        device.write(last, &block_bytes(0)).unwrap();
        device.mark_present(last..DEVICE_BYTES_MAX).unwrap();
        device.sync().unwrap();
        assert_eq!(device.missing(0..DEVICE_BYTES_MAX), vec![0..last]);
        store.forget(&KEY);
    }
}

#[test]
fn another_size_is_refused_while_open_and_starts_empty_afterwards() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let first = device(&store);
    fill(&first, 0..1);
    first.sync().unwrap();
    let inode = first.inode();
    assert_matches!(
        store.device(&KEY, BYTES + BLOCK_BYTES),
        Err(DeviceError::OtherSize {
            open_bytes: BYTES,
            ..
        })
    );
    store.forget(&KEY);
    // Still held, so that its inode can't be used again.
    assert_matches!(store.device(&KEY, 4096), Err(DeviceError::OtherSize { .. }));
    store.forget(&KEY);
    drop(first);
    let held = fs_err::File::open(scratch.join(format!("devices/{}.data", KEY.hex()))).unwrap();
    let second = store.device(&KEY, BYTES + BLOCK_BYTES).unwrap();
    assert!(present(&second).is_empty());
    // Whoever still has the old file sees it as it was.
    assert_ne!(second.inode(), inode);
    assert_eq!(held.metadata().unwrap().len(), BYTES);
}

#[test]
fn a_device_in_use_is_not_removed() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let held = device(&store);
    fill(&held, 0..1);
    assert_matches!(
        store.remove_device(&KEY),
        Err(DeviceError::InUse { key: KEY })
    );
    assert_eq!(present(&device(&store)), [0]);
    drop(held);
    assert_eq!(store.devices().unwrap(), [KEY]);
    store.remove_device(&KEY).unwrap();
    assert!(store.devices().unwrap().is_empty());
    assert_eq!(store.usage().unwrap(), 0);
    store.remove_device(&KEY).unwrap();
    assert!(present(&device(&store)).is_empty());
}

#[test]
fn usage_counts_what_is_allocated() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let device = device(&store);
    let empty = store.usage().unwrap();
    assert!(empty < BYTES / 100, "{empty}");
    fill(&device, 0..1000);
    device.sync().unwrap();
    let filled = store.usage().unwrap() - empty;
    assert!(
        (1000 * BLOCK_BYTES..1100 * BLOCK_BYTES).contains(&filled),
        "{filled}"
    );
}

#[test]
fn a_store_is_open_once() {
    let scratch = Scratch::new();
    let root = scratch.join("deep/root");
    let store = open(&root, "boot");
    assert_matches!(
        draught_store::Store::open(&root, "boot"),
        Err(OpenError::Locked { .. })
    );
    assert_eq!(store.root(), root);
    drop(store);
    open(&root, "boot");
}

#[test]
fn a_directory_with_another_layout_is_left_alone() {
    let scratch = Scratch::new();
    let root = scratch.path();
    drop(open(root, "boot"));
    fs_err::write(root.join("version"), "draught store 2\n").unwrap();
    let error = draught_store::Store::open(root, "boot").unwrap_err();
    assert_matches!(&error, OpenError::Version { found, .. } if found == "draught store 2\n");
    fs_err::remove_file(root.join("version")).unwrap();
    let error = draught_store::Store::open(root, "boot").unwrap_err();
    assert_matches!(&error, OpenError::NotAStore { name, .. } if name == "devices");
}

#[test]
fn many_threads_fill_one_word_and_none_loses_a_bit() {
    const THREADS: u64 = 8;
    let scratch = Scratch::new();
    {
        let store = open(scratch.path(), "boot");
        let device = device(&store);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let device = &device;
                scope.spawn(move || {
                    // Each thread's blocks lie between those of the others.
                    for block in (thread..2_000).step_by(8) {
                        fill(device, block..block + 1);
                        assert!(device.is_present(common::byte_range(&(block..block + 1))));
                    }
                });
            }
            for _ in 0..20 {
                device.sync().unwrap();
            }
        });
        assert_eq!(present(&device).len(), 2_000);
        device.sync().unwrap();
        fill(&device, 5_000..5_001);
    }
    let same = open(scratch.path(), "boot");
    assert_eq!(present(&device(&same)).len(), 2_001);
    drop(same);
    let other = open(scratch.path(), "other boot");
    assert_eq!(present(&device(&other)).len(), 2_000);
}

#[test]
fn a_range_outside_is_refused_without_harm() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let device = device(&store);
    assert_matches!(
        device.write(BYTES, &[1]),
        Err(WriteError::OutOfRange { .. })
    );
    assert_matches!(device.write(1, &[1]), Err(WriteError::OutOfRange { .. }));
    assert_matches!(
        device.mark_present(0..BYTES + 1),
        Err(WriteError::OutOfRange { .. })
    );
    assert!(!device.is_poisoned() && present(&device).is_empty());
    assert_eq!(fs_err::metadata(device.path()).unwrap().len(), BYTES);
}
