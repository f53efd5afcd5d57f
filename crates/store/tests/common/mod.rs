//! What several tests of the store use.
#![allow(dead_code, unused_macros, reason = "not every test uses everything")]

use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use draught_digest::Digest;
use draught_store::{BLOCK_BYTES, Device, DeviceKey, Store, TableChunk};

pub(crate) const KEY: DeviceKey = DeviceKey([0xAB; 32]);
pub(crate) const BLOCKS: u64 = 10_000;
pub(crate) const BYTES: u64 = BLOCKS * BLOCK_BYTES;

pub(crate) fn open(root: &Path, boot: &str) -> Store {
    Store::open(root, boot).unwrap()
}

pub(crate) fn device(store: &Store) -> Arc<Device> {
    store.device(&KEY, BYTES).unwrap()
}

/// What block `block` must hold.
pub(crate) fn block_bytes(block: u64) -> Vec<u8> {
    (block + 1).to_le_bytes().repeat(512)
}

pub(crate) fn byte_range(blocks: &Range<u64>) -> Range<u64> {
    blocks.start * BLOCK_BYTES..blocks.end * BLOCK_BYTES
}

pub(crate) fn fill(device: &Device, blocks: Range<u64>) {
    let bytes: Vec<u8> = blocks.clone().flat_map(block_bytes).collect();
    let range = byte_range(&blocks);
    device.write(range.start, &bytes).unwrap();
    device.mark_present(range).unwrap();
}

/// The blocks that are present, each of which must hold what it should.
pub(crate) fn present(device: &Device) -> Vec<u64> {
    let (data, _) = fs_err::File::open(device.path()).unwrap().into_parts();
    let missing = device.missing(0..device.bytes());
    let mut blocks = Vec::new();
    let mut start = 0;
    for run in missing.iter().chain([&(device.bytes()..device.bytes())]) {
        blocks.extend(start / BLOCK_BYTES..run.start / BLOCK_BYTES);
        start = run.end;
    }
    for block in &blocks {
        let mut read = [0; 4096];
        data.read_exact_at(&mut read, block * BLOCK_BYTES).unwrap();
        assert!(
            read[..] == block_bytes(*block),
            "block {block} is present without its data"
        );
    }
    assert_eq!(
        device.bytes_present(),
        u64::try_from(blocks.len()).unwrap() * BLOCK_BYTES
    );
    blocks
}

pub(crate) fn map_path(device: &Device) -> std::path::PathBuf {
    device.path().with_extension("map")
}

/// Fails unless a value matches a pattern, and shows the value.
macro_rules! assert_matches {
    ($value:expr, $($pattern:tt)+) => {
        match $value {
            $($pattern)+ => {}
            ref value => panic!("{value:?} does not match {}", stringify!($($pattern)+)),
        }
    };
}

/// What the chunk `number` holds: more than one block.
pub(crate) fn content(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().repeat(625);
    bytes.truncate(5_000);
    bytes
}

/// That chunk, at a place.
pub(crate) fn chunk(number: u64, place: u64) -> TableChunk {
    TableChunk {
        place,
        bytes: 5_000,
        digest: Digest::blake3(&content(number)),
    }
}

/// Chunks one after the other, from this number on.
pub(crate) fn chunks(first: u64, count: u64) -> Vec<TableChunk> {
    let place = |number| (number - first) * 2 * BLOCK_BYTES;
    (first..first + count)
        .map(|number| chunk(number, place(number)))
        .collect()
}
