//! The images that the store has, mounted or not: which there are, what they refer to, how they are used.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use draught_digest::Digest;
use draught_fill::FeedMap;
use draught_store::{DeviceKey, Store};

use crate::attach::Kept;
use crate::handover::Key;
use crate::record::{
    DeviceRecord, ImageRecord, METADATA, RECORD, USE, UseRecord, decode_feed, feed_file,
};
use crate::state::now;
use crate::touches::Touches;

/// The recording among an image's files.
pub(crate) const TOUCHES: &str = "touches";

/// An image in the store.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: ImageRecord,
    pub(crate) usage: UseRecord,
}

/// All images whose records can be read, by their names in the store. Read when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    entries: Option<BTreeMap<String, Entry>>,
}

impl Catalog {
    /// The entries.
    pub(crate) fn entries(&mut self, store: &Store) -> &mut BTreeMap<String, Entry> {
        self.entries.get_or_insert_with(|| {
            let names = store.images().into_iter();
            let entries = names.filter_map(|name| match read_entry(store, &name) {
                Ok(entry) => Some((name, entry)),
                Err(error) => {
                    tracing::warn!(%error, image = name, "an image's record can't be read: it will be attached anew");
                    None
                }
            });
            entries.collect()
        })
    }

    /// The names of images with that manifest, the newest first.
    pub(crate) fn of_manifest(&mut self, store: &Store, digest: &Digest) -> Vec<String> {
        let digest = digest.to_string();
        let entries = self.entries(store).iter();
        let mut found: Vec<(u64, String)> = entries
            .filter(|(_, entry)| entry.record.digest == digest)
            .map(|(name, entry)| (entry.record.created, name.clone()))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, name)| name).collect()
    }

    /// The names of images that were asked for by a reference, or have that digest.
    pub(crate) fn named(&mut self, store: &Store, reference: &str) -> Vec<String> {
        let entries = self.entries(store).iter();
        let named = entries.filter(|(_, entry)| {
            entry.record.digest == reference || entry.usage.references.contains(reference)
        });
        named.map(|(name, _)| name.clone()).collect()
    }

    /// A name for one more image with that manifest: one that none has had, for whether a mount is in use is
    /// asked of the very file that it was made from.
    pub(crate) fn new_name(&mut self, store: &Store, digest: &Digest) -> String {
        // Also beside those whose records can't be read.
        let taken: BTreeSet<String> = store.images().into_iter().collect();
        let hex = digest.hex();
        // Finer than images can come and go: devices outlive their image until they are collected.
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let stamp = time.map_or(0, |time| time.as_nanos());
        let names = (0_u32..).map(|number| format!("{hex}-{stamp}-{number}"));
        let mut free = names.filter(|name| !taken.contains(name));
        free.next().unwrap_or(hex)
    }

    /// Notes a new image.
    pub(crate) fn insert(&mut self, store: &Store, name: &str, record: &ImageRecord) {
        let entry = Entry {
            record: record.clone(),
            usage: UseRecord::default(),
        };
        self.entries(store).insert(name.to_owned(), entry);
    }

    /// Notes that an image is used now, by that name if any.
    pub(crate) fn used(&mut self, store: &Store, name: &str, reference: Option<&str>) {
        let Some(entry) = self.entries(store).get_mut(name) else {
            return;
        };
        let usage = &mut entry.usage;
        usage.last_used = now();
        usage.references.extend(reference.map(str::to_owned));
        let kept = serde_json::to_vec(usage)
            .map_err(io::Error::other)
            .and_then(|bytes| store.put_image_file_soon(name, USE, &bytes));
        if let Err(error) = kept {
            tracing::warn!(%error, image = name, "when an image was used last is not kept");
        }
    }

    /// Forgets an image and removes its files. What is on its devices is for others to remove.
    pub(crate) fn remove(&mut self, store: &Store, name: &str) -> io::Result<()> {
        store.remove_image(name)?;
        self.entries(store).remove(name);
        Ok(())
    }
}

fn read_entry(store: &Store, name: &str) -> io::Result<Entry> {
    let record = ImageRecord::decode(&store.read_image_file(name, RECORD)?)?;
    let usage = store.read_image_file(name, USE);
    // Torn or missing: never used, by no name.
    let usage = usage
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Entry {
        record,
        usage: usage.unwrap_or_default(),
    })
}

/// The feeds of an image in the store.
pub(crate) fn read_feeds(
    store: &Store,
    name: &str,
    record: &ImageRecord,
) -> io::Result<Vec<Arc<FeedMap>>> {
    let feed = |index| {
        let bytes = store.read_image_file(name, &feed_file(index))?;
        decode_feed(&bytes).map(Arc::new)
    };
    (0..record.blobs.len()).map(feed).collect()
}

/// An image as it was kept, if all of it is there.
pub(crate) fn load(store: &Store, name: &str) -> io::Result<Kept> {
    let record = ImageRecord::decode(&store.read_image_file(name, RECORD)?)?;
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let metadata = store.read_image_file(name, METADATA)?;
    if Digest::blake3(&metadata).to_string() != record.metadata {
        return Err(invalid("its metadata image is torn"));
    }
    for device in &record.devices {
        let bytes = store.device_bytes(&DeviceKey(device.key()?));
        if bytes.map_err(io::Error::other)? != device.bytes {
            return Err(invalid("one of its devices has another size"));
        }
    }
    let feeds = read_feeds(store, name, &record)?;
    Ok(Kept {
        touches: read_touches(store, name),
        name: name.to_owned(),
        record,
        feeds,
    })
}

/// The recording of an image; an empty one if there is none.
pub(crate) fn read_touches(store: &Store, name: &str) -> Touches {
    let bytes = store.read_image_file(name, TOUCHES).unwrap_or_default();
    Touches::decode(&bytes).unwrap_or_default()
}

/// The keys of devices.
pub(crate) fn keys(devices: &[DeviceRecord]) -> io::Result<Vec<Key>> {
    devices.iter().map(DeviceRecord::key).collect()
}
