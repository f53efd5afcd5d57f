//! Whatever becomes of a map file, no block counts that was not marked.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::path::Path;

use common::{BYTES, KEY, device, fill, map_path, open, present};
use draught_store::{DeviceKey, Store};
use draught_testkit::Scratch;

const MARKED: [u64; 5] = [0, 1, 4_031, 4_032, 9_999];

/// A store whose device has the blocks of [`MARKED`], all of them durable.
fn marked(root: &Path) {
    let store = open(root, "boot");
    let device = device(&store);
    for block in MARKED {
        fill(&device, block..block + 1);
    }
    device.sync().unwrap();
}

/// Damages the map of a device, then looks what is present under both boots; the device must work.
fn check(damage: impl Fn(&Path), expect: &[u64]) {
    for boot in ["boot", "other boot"] {
        let scratch = Scratch::new();
        marked(scratch.path());
        damage(&scratch.join(format!("devices/{}.map", KEY.hex())));
        {
            let store = open(scratch.path(), boot);
            let device = device(&store);
            assert_eq!(present(&device), expect, "{boot}");
            fill(&device, 77..78);
            device.sync().unwrap();
        }
        let store = open(scratch.path(), "third boot");
        assert!(present(&device(&store)).contains(&77));
    }
}

#[test]
fn an_undamaged_map_is_believed() {
    check(|_| (), &MARKED);
}

#[test]
fn a_missing_map_is_no_map() {
    check(|map| fs_err::remove_file(map).unwrap(), &[]);
}

#[test]
fn an_empty_short_or_long_map_is_no_map() {
    for bytes in [0, 100, 4096, 8192, 12_287, 12_289, 1 << 20] {
        let cut = |map: &Path| {
            let map = fs_err::OpenOptions::new().write(true).open(map).unwrap();
            map.set_len(bytes).unwrap();
        };
        check(cut, &[]);
    }
}

#[test]
fn a_map_of_zeros_or_ones_is_no_map() {
    for byte in [0, 0xFF] {
        check(|map| fs_err::write(map, vec![byte; 12_288]).unwrap(), &[]);
    }
}

#[test]
fn the_map_of_another_device_is_no_map() {
    let other = |map: &Path| {
        let root = map.parent().and_then(Path::parent).unwrap();
        let key = DeviceKey([0xCD; 32]);
        let store = open(root, "boot");
        let other = store.device(&key, BYTES).unwrap();
        fill(&other, 0..5_000);
        other.sync().unwrap();
        let from = map_path(&other);
        drop((store, other));
        fs_err::copy(from, map).unwrap();
    };
    check(other, &[]);
}

#[test]
fn an_older_map_counts_for_what_it_says() {
    let scratch = Scratch::new();
    marked(scratch.path());
    let map = scratch.join(format!("devices/{}.map", KEY.hex()));
    let older = fs_err::read(&map).unwrap();
    {
        let store = open(scratch.path(), "boot");
        let device = device(&store);
        fill(&device, 50..60);
        device.sync().unwrap();
    }
    fs_err::write(&map, older).unwrap();
    let store = open(scratch.path(), "boot");
    assert_eq!(present(&device(&store)), MARKED);
}

#[test]
fn a_map_without_its_data_file_is_no_map() {
    let scratch = Scratch::new();
    marked(scratch.path());
    let data = scratch.join(format!("devices/{}.data", KEY.hex()));
    // The number of the inode is often used again at once; its time of birth is not.
    fs_err::remove_file(&data).unwrap();
    {
        let store = open(scratch.path(), "boot");
        assert!(present(&device(&store)).is_empty());
    }
    marked(scratch.path());
    fs_err::remove_file(&data).unwrap();
    fs_err::File::create(&data).unwrap().set_len(BYTES).unwrap();
    let store = open(scratch.path(), "boot");
    assert!(present(&device(&store)).is_empty());
}

#[test]
fn a_data_file_that_was_cut_starts_empty() {
    let scratch = Scratch::new();
    marked(scratch.path());
    let data = scratch.join(format!("devices/{}.data", KEY.hex()));
    for bytes in [0, 4096] {
        let file = fs_err::OpenOptions::new().write(true).open(&data).unwrap();
        file.set_len(bytes).unwrap();
        let store = open(scratch.path(), "boot");
        assert!(present(&device(&store)).is_empty());
    }
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let scratch = Scratch::new();
    marked(scratch.path());
    for suffix in ["map", "data"] {
        let victim = scratch.join("victim");
        fs_err::write(&victim, "precious").unwrap();
        let path = scratch.join(format!("devices/{}.{suffix}", KEY.hex()));
        fs_err::remove_file(&path).unwrap();
        fs_err::os::unix::fs::symlink(&victim, &path).unwrap();
        let store = open(scratch.path(), "boot");
        assert!(store.device(&KEY, BYTES).is_err());
        assert_eq!(fs_err::read(&victim).unwrap(), b"precious");
        fs_err::remove_file(&path).unwrap();
    }
}

#[test]
fn every_flipped_byte_takes_bits_away_and_adds_none() {
    let scratch = Scratch::new();
    marked(scratch.path());
    let map = scratch.join(format!("devices/{}.map", KEY.hex()));
    let good = fs_err::read(&map).unwrap();
    // Around the header, the first two sectors of both areas, and some bytes of all others.
    let offsets = (0..160)
        .chain(4096..4096 + 1024)
        .chain((8192..8192 + 1024).step_by(3))
        .chain((0..good.len()).step_by(97));
    let store: Store = open(scratch.path(), "boot");
    for offset in offsets {
        let mut bad = good.clone();
        bad[offset] ^= 0x10;
        fs_err::write(&map, &bad).unwrap();
        let device = device(&store);
        // `present` compares with the data, which only the marked blocks have.
        let found = present(&device);
        assert!(found.iter().all(|block| MARKED.contains(block)), "{offset}");
        if offset >= 8192 {
            assert_eq!(
                found, MARKED,
                "durable bits count without the volatile ones: {offset}"
            );
        }
        drop(device);
        store.forget(&KEY);
    }
}
