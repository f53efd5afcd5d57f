//! Attaching: from a reference to a metadata image and the devices that it needs.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_erofs::Options;
use draught_fill::{FeedMap, MapError};
use draught_importer::{
    BLOB_BACKEND, Import, ImportError, LAZY_OS_FEATURE, Limits, Opened, Part, Read, Step,
};
use draught_oci::{Manifest, Platform};
use draught_source::{Source, SourceError};
use draught_store::Store;
use draught_tree::{BlobId, ChunkId, Kind, NodeId, Tree};
use futures_util::{StreamExt as _, stream};

use crate::ahead::Ahead;
use crate::place::{PlaceError, Placed, place};
use crate::record::{
    BlobRecord, DEVICES_MAX, DeviceRecord, ImageRecord, METADATA, RECORD, VERSION, encode_feed,
    feed_file,
};
use crate::source::{OriginError, Sources};
use crate::state::{Origin, now};
use crate::touches::Touches;

/// Why an image can't be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AttachError {
    #[error("its place can't be used")]
    Origin(#[source] Box<OriginError>),
    #[error("failed to fetch its manifest")]
    Manifest(#[source] Box<SourceError>),
    #[error("failed to fetch its metadata")]
    Fetch(#[source] Box<SourceError>),
    #[error("failed to read it")]
    Import(#[source] Box<ImportError>),
    #[error("its chunks fit on no device")]
    Place(#[source] PlaceError),
    #[error("its blobs can't be read in ranges")]
    Map(#[source] MapError),
    #[error("it needs {devices} devices, the limit is {DEVICES_MAX}")]
    Devices { devices: usize },
    #[error("its metadata can't be written for the kernel")]
    Write(#[source] Box<draught_erofs::WriteError>),
    #[error("failed to make a device for it in the store")]
    Device(#[source] draught_store::DeviceError),
    #[error("failed to keep its metadata in the store")]
    Keep(#[source] io::Error),
}

/// An image whose manifest was fetched.
#[derive(Debug)]
pub(crate) struct Resolved {
    blobs: Ahead,
    manifest: Manifest,
    pub(crate) digest: Digest,
}

/// Fetches an image's manifest: whoever may do that may use the image, also what the node has of it already.
pub(crate) async fn resolve(sources: &Sources, origin: &Origin) -> Result<Resolved, AttachError> {
    let (blobs, selector) = sources
        .open_blobs(origin)
        .await
        .map_err(|error| AttachError::Origin(Box::new(error)))?;
    // Beside its original, a lazily readable image is the better one.
    let features = vec![LAZY_OS_FEATURE.to_owned()];
    let platform = Platform::host().with_os_features(features);
    let manifest = blobs.blobs().repository().image(&selector, &platform).await;
    let manifest = manifest.map_err(|error| AttachError::Manifest(Box::new(error)))?;
    blobs.blobs().are_in_repository(&manifest.content().layers);
    Ok(Resolved {
        blobs,
        manifest: manifest.content().clone(),
        digest: manifest.digest(),
    })
}

impl Resolved {
    /// What the image's blobs are read from.
    pub(crate) fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.blobs.clone())
    }

    /// Checks that all blobs of an image that is kept can be had: its manifest lists them, or somebody said
    /// where they are.
    pub(crate) fn check_reach(&self, record: &ImageRecord) -> Result<(), AttachError> {
        if self.blobs.blobs().has_backend() {
            return Ok(());
        }
        let layers = &self.manifest.layers;
        for blob in &record.blobs {
            let Ok(blob) = blob.digest.parse() else {
                continue;
            };
            if layers.iter().all(|layer| layer.digest != blob) {
                let mut said = layers.iter().map(|layer| layer.annotation(BLOB_BACKEND));
                let backend = said.find_map(|said| said.map(str::to_owned));
                let error = ImportError::ForeignBlob { blob, backend };
                return Err(AttachError::Import(Box::new(error)));
            }
        }
        Ok(())
    }

    /// Begins to fetch everything, if it is so little that asking for parts of it would take longer.
    pub(crate) fn fetch_ahead(&self) {
        // What is last is read first: the metadata, by the connection that is open.
        self.blobs.begin(self.manifest.layers.iter().rev());
    }

    /// Likewise some of its layers.
    pub(crate) fn fetch_parts_ahead(&self, parts: &[Part]) {
        let layers = parts.iter().flat_map(|part| &part.layers);
        self.blobs.begin(layers.map(|(layer, _)| layer));
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the image's metadata into a tree.
    ///
    /// For a thread of its own: hundreds of thousands of inodes take a while.
    pub(crate) async fn import(&self) -> Result<Opened, AttachError> {
        let import = Import::new(&self.manifest, &Limits::default());
        let mut import = import.map_err(|error| AttachError::Import(Box::new(error)))?;
        if self.blobs.blobs().has_backend() {
            import = import.with_blobs_elsewhere();
        }
        self.read(import).await
    }

    /// Reads the metadata of some of its layers into a tree; likewise for a thread of its own.
    pub(crate) async fn import_parts(&self, parts: &[Part]) -> Result<Opened, AttachError> {
        self.read(Import::of_parts(parts, &Limits::default())).await
    }

    async fn read(&self, mut import: Import) -> Result<Opened, AttachError> {
        let failed = |error| AttachError::Import(Box::new(error));
        loop {
            match import.step().map_err(failed)? {
                Step::Done(opened) => return Ok(*opened),
                Step::Sizes(missing) => {
                    for blob in missing {
                        let bytes = self.blobs.blobs().bytes_elsewhere(&blob).await;
                        let bytes = bytes.map_err(|error| AttachError::Fetch(Box::new(error)))?;
                        import.give_size(&blob, bytes);
                    }
                }
                Step::Read(reads) => {
                    let blobs = &self.blobs;
                    let mut fetched = stream::iter(reads)
                        .map(|read| async move { (fetch(blobs, &read).await, read) })
                        .buffer_unordered(READS_AT_ONCE);
                    while let Some((bytes, read)) = fetched.next().await {
                        let bytes = bytes.map_err(|error| AttachError::Fetch(Box::new(error)))?;
                        import.give(&read, bytes.into()).map_err(failed)?;
                    }
                }
            }
        }
    }
}

/// Pieces of metadata that are fetched at once: some images have one for each layer, and a hundred layers.
const READS_AT_ONCE: usize = 8;

/// Times that a range of metadata is asked for.
const ATTEMPTS_MAX: u32 = 4;

async fn fetch(blobs: &Ahead, read: &Read) -> Result<Bytes, SourceError> {
    let mut attempt = 1;
    loop {
        match blobs.read_range(&read.blob, read.range.clone()).await {
            Err(error) if error.is_unavailable() && attempt < ATTEMPTS_MAX => {
                tracing::debug!(
                    attempt,
                    error = &error as &dyn std::error::Error,
                    "asking again"
                );
                tokio::time::sleep(std::time::Duration::from_millis(100 << attempt)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// An image that has its place in the store.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its name in the store.
    pub(crate) name: String,
    pub(crate) record: ImageRecord,
    /// In the order of the record's blobs.
    pub(crate) feeds: Vec<Arc<FeedMap>>,
    /// What is known to be touched first.
    pub(crate) touches: Touches,
}

/// Places an image in the store under a name that no image has had. `hot` are chunks that a start is known
/// to touch, in that order; without any, what the image itself wants fetched first. `known` is the store
/// whose places chunks are to share, if any.
///
/// Nothing may be placed or removed in the store at the same time.
pub(crate) fn keep(
    opened: &Opened,
    hot: &[ChunkId],
    digest: &Digest,
    name: String,
    store: &Store,
    known: Option<&Store>,
) -> Result<Kept, AttachError> {
    let Opened { tree, prefetch, .. } = opened;
    let hot = if hot.is_empty() {
        chunks_below(tree, prefetch)
    } else {
        hot.to_vec()
    };
    let placed = place(&tree.map, &hot, known, &name).map_err(AttachError::Place)?;
    if placed.devices.len() > DEVICES_MAX {
        let devices = placed.devices.len();
        return Err(AttachError::Devices { devices });
    }
    let feeds = feeds(tree, &placed)?;
    let mut metadata = Vec::new();
    draught_erofs::write(
        tree,
        &placed.for_metadata(),
        &Options::default(),
        &mut metadata,
    )
    .map_err(|error| AttachError::Write(Box::new(error)))?;
    let record = ImageRecord {
        version: VERSION,
        digest: digest.to_string(),
        metadata: Digest::blake3(&metadata).to_string(),
        devices: placed
            .devices
            .iter()
            .map(|device| DeviceRecord {
                key: device.key.hex(),
                bytes: device.bytes,
            })
            .collect(),
        devices_shared: placed
            .devices
            .iter()
            .filter(|device| device.table.is_none())
            .count(),
        blobs: tree
            .map
            .blobs
            .iter()
            .map(|blob| BlobRecord {
                digest: blob.digest.to_string(),
                stored_bytes: blob.stored_bytes,
            })
            .collect(),
        bytes_total: placed.bytes_total,
        bytes_shared: placed.bytes_shared,
        created: now(),
    };
    for device in &placed.devices {
        if let Some(table) = &device.table {
            store
                .create_device(&device.key, table)
                .map_err(AttachError::Device)?;
            // Opened again when it is mounted: what is only kept holds no descriptor.
            store.forget(&device.key);
        }
    }
    let put = |file: &str, bytes: &[u8]| {
        store
            .put_image_file_soon(&name, file, bytes)
            .map_err(AttachError::Keep)
    };
    for (index, feed) in feeds.iter().enumerate() {
        put(&feed_file(index), &encode_feed(feed))?;
    }
    put(METADATA, &metadata)?;
    // Last: what has a record is whole.
    put(RECORD, &record.encode().map_err(AttachError::Keep)?)?;
    Ok(Kept {
        touches: touches_of(&hot, &placed, tree),
        name,
        record,
        feeds,
    })
}

fn feeds(tree: &Tree, placed: &Placed) -> Result<Vec<Arc<FeedMap>>, AttachError> {
    let blobs = (0..).zip(&tree.map.blobs);
    let feed = |index| FeedMap::new(&tree.map, BlobId(index), |chunk| placed.at(chunk));
    let feeds = blobs.map(|(index, _)| feed(index).map(Arc::new));
    feeds.collect::<Result<_, _>>().map_err(AttachError::Map)
}

/// The chunks of files, and of all that is below directories, in that order, each once.
fn chunks_below(tree: &Tree, nodes: &[NodeId]) -> Vec<ChunkId> {
    let mut seen = vec![false; tree.map.chunks.len()];
    let mut chunks = Vec::new();
    let mut visited = vec![false; tree.arena_len()];
    let mut stack: Vec<NodeId> = nodes.iter().rev().copied().collect();
    while let Some(node) = stack.pop() {
        if visited.get(node.index()).copied().unwrap_or(true) {
            continue;
        }
        if let Some(visited) = visited.get_mut(node.index()) {
            *visited = true;
        }
        match &tree.node(node).kind {
            Kind::File { chunks: own, .. } => {
                for chunk in own {
                    if let Some(seen @ false) = seen.get_mut(chunk.index()) {
                        *seen = true;
                        chunks.push(*chunk);
                    }
                }
            }
            Kind::Directory(children) => {
                stack.extend(children.values().rev().map(|name| name.node));
            }
            _ => {}
        }
    }
    chunks
}

/// Chunks as touches of where they were placed.
fn touches_of(chunks: &[ChunkId], placed: &Placed, tree: &Tree) -> Touches {
    let mut touches = Touches::default();
    for id in chunks {
        let (Some((device, place)), Some(chunk)) = (placed.at(*id), tree.map.chunk(*id)) else {
            continue;
        };
        let block =
            |bytes: u64| u32::try_from(bytes / draught_tree::BLOCK_BYTES).unwrap_or(u32::MAX);
        let end = place + u64::from(chunk.bytes).next_multiple_of(draught_tree::BLOCK_BYTES);
        touches.touch(0, device, block(place)..block(end));
    }
    touches
}

impl AttachError {
    /// The layer that is to blame, if the image's own content is.
    pub(crate) fn layer(&self) -> Option<Digest> {
        let Self::Import(error) = self else {
            return None;
        };
        match &**error {
            ImportError::Layer { layer, .. } | ImportError::MetadataLayer { layer, .. } => {
                Some(*layer)
            }
            ImportError::Corrupt { blob, .. } | ImportError::BlobEnd { blob, .. } => Some(*blob),
            _ => None,
        }
    }
}

/// One lock for each image that is being attached, so that a crowd of mounts of one image fetches its
/// metadata once.
#[derive(Debug, Default)]
pub(crate) struct Attaching(parking_lot::Mutex<HashMap<Digest, Arc<parking_lot::Mutex<()>>>>);

impl Attaching {
    /// Runs `work` while nobody else does for the same image.
    pub(crate) fn alone<T>(&self, image: &Digest, work: impl FnOnce() -> T) -> T {
        let own = Arc::clone(self.0.lock().entry(*image).or_default());
        let result = {
            let _alone = own.lock();
            work()
        };
        let mut all = self.0.lock();
        // Ours and the table's: nobody waits.
        if Arc::strong_count(&own) <= 2 {
            all.remove(image);
        }
        result
    }
}
