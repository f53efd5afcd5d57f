//! A store with millions of chunks, none of them present: what an index is made from.

use std::path::Path;

use anyhow::{Context as _, Result};
use draught_digest::{Algorithm, Digest};
use draught_store::{BLOCK_BYTES, DeviceKey, Store, TableChunk};
use serde_json::{Value, json};

use crate::bench::interrupt::Interrupt;

/// Devices, and the chunks of each.
const DEVICES: u64 = 50;
const CHUNKS_PER_DEVICE: u64 = 100_000;

/// All chunks.
pub(super) const CHUNKS: u64 = DEVICES * CHUNKS_PER_DEVICE;

/// Bytes of a chunk: as many as fit into a block.
const CHUNK_BYTES: u32 = 4000;

/// What a daemon calls the record of an image.
const RECORD: &str = "image.json";

/// Fills a store that no daemon has open. It has one image already, whose record is the pattern for those
/// that refer to the new devices: without them a daemon would remove what nobody refers to.
pub(super) fn fill(root: &Path, interrupt: &Interrupt) -> Result<()> {
    let boot_id = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let store = Store::open(root, &boot_id)?;
    let pattern = store.images().into_iter().next();
    let pattern = pattern.context("find the record of an image in the store")?;
    let pattern = serde_json::from_slice(&store.read_image_file(&pattern, RECORD)?)?;
    for number in 0..DEVICES {
        interrupt.check()?;
        let key = DeviceKey(*named(b"device", number).as_bytes());
        let device = store.create_device(&key, &table(number, CHUNKS_PER_DEVICE))?;
        let record = record(&pattern, &key, device.bytes());
        let record = record.context("understand the record of an image")?;
        drop(device);
        store.forget(&key);
        let name = format!("plenty-{number}");
        store.put_image_file_soon(&name, RECORD, record.to_string().as_bytes())?;
    }
    store.sync_images()?;
    Ok(())
}

/// The record of an image that has one device and no blobs.
fn record(pattern: &Value, key: &DeviceKey, bytes: u64) -> Option<Value> {
    let mut record = pattern.as_object()?.clone();
    let digest = Digest::sha256(&key.0).to_string();
    for (field, value) in [
        ("digest", json!(digest)),
        ("devices", json!([{"key": key.hex(), "bytes": bytes}])),
        ("blobs", json!([])),
    ] {
        // A field that is not there any more would make the record one that nobody can read.
        *record.get_mut(field)? = value;
    }
    Some(Value::Object(record))
}

/// Chunks that no image has.
fn table(device: u64, chunks: u64) -> Vec<TableChunk> {
    let chunk = |number: u64| TableChunk {
        place: number * BLOCK_BYTES,
        bytes: CHUNK_BYTES,
        digest: named(b"chunk", device * CHUNKS_PER_DEVICE + number),
    };
    (0..chunks).map(chunk).collect()
}

/// A digest that is as random as any.
fn named(what: &[u8], number: u64) -> Digest {
    let digest = Digest::blake3(&[what, &number.to_le_bytes()].concat());
    Digest::new(Algorithm::Blake3, *digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_devices_share_a_chunk() {
        let chunks = (0..3).flat_map(|device| table(device, 1000));
        let digests: BTreeSet<[u8; 32]> = chunks.map(|chunk| *chunk.digest.as_bytes()).collect();
        assert_eq!(digests.len(), 3000);
    }

    #[test]
    fn a_table_makes_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "boot").unwrap();
        let device = store.create_device(&DeviceKey([1; 32]), &table(0, 1000));
        assert_eq!(device.unwrap().bytes(), 1000 * BLOCK_BYTES);
        assert_eq!(store.index_stats().chunks, 1000);
    }

    #[test]
    fn a_record_keeps_what_it_does_not_know_and_misses_what_it_needs() {
        let pattern = json!({"version": 9, "digest": "", "devices": [1, 2], "blobs": [3]});
        let record = record(&pattern, &DeviceKey([1; 32]), 4096).unwrap();
        assert_eq!(record["version"], 9);
        assert_eq!(record["devices"][0]["bytes"], 4096);
        assert_eq!(record["blobs"], json!([]));
        assert!(super::record(&json!({"digest": ""}), &DeviceKey([1; 32]), 0).is_none());
    }
}
