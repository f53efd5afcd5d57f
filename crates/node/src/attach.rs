//! Attaching: from a reference to a metadata image and the devices that it needs.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::{Algorithm, Digest, Hasher};
use draught_erofs::{Options, Placement};
use draught_fill::{DeviceMap, MapError};
use draught_importer::{Import, ImportError, Limits, Read, Step};
use draught_oci::{Manifest, Platform};
use draught_source::{Repository, Source, SourceError};
use draught_store::Store;
use draught_tree::{BLOCK_BYTES, BlobId, Tree};

use crate::mounts::{METADATA, RECORD};
use crate::record::{DeviceRecord, ImageRecord, VERSION, device_key, encode_map, map_file};
use crate::source::{OriginError, open_repository};
use crate::state::Origin;

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
    Map(#[source] MapError),
    #[error(
        "its devices have {bytes} bytes together, the limit is {}",
        DEVICES_BYTES_MAX
    )]
    TooLarge { bytes: u64 },
    #[error("its metadata can't be written for the kernel")]
    Write(#[source] Box<draught_erofs::WriteError>),
}

/// Bytes of an image's devices together. Their size is whatever the image says, and every block takes bits
/// in memory and on disk: 64 MiB of each for as much as this.
const DEVICES_BYTES_MAX: u64 = 1 << 40;

/// A device that an image needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) key: Digest,
    pub(crate) blob: Digest,
    pub(crate) map: Arc<DeviceMap>,
    encoded: Vec<u8>,
}

/// An image that is ready to be mounted.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) record: ImageRecord,
    pub(crate) devices: Vec<Prepared>,
    pub(crate) source: Arc<dyn Source>,
    metadata: Vec<u8>,
}

/// Fetches an image's metadata and prepares everything that mounting it needs. Nothing is written yet.
///
/// For a thread of its own: hundreds of thousands of inodes take a while.
pub(crate) async fn attach(origin: &Origin) -> Result<Attached, AttachError> {
    let (repository, selector) = open_repository(origin)
        .await
        .map_err(|error| AttachError::Origin(Box::new(error)))?;
    let manifest = repository.image(&selector, &Platform::host()).await;
    let manifest = manifest.map_err(|error| AttachError::Manifest(Box::new(error)))?;
    let tree = Box::pin(import(&repository, manifest.content())).await?;
    let digest = manifest.digest();
    let (record, devices, metadata) = prepare(&tree, &digest)?;
    Ok(Attached {
        record,
        devices,
        source: Arc::new(repository),
        metadata,
    })
}

/// Reads the image's metadata into a tree.
async fn import(repository: &Repository, manifest: &Manifest) -> Result<Tree, AttachError> {
    let mut import = Import::new(manifest, &Limits::default())
        .map_err(|error| AttachError::Import(Box::new(error)))?;
    loop {
        match import
            .step()
            .map_err(|error| AttachError::Import(Box::new(error)))?
        {
            Step::Done(opened) => return Ok(opened.tree),
            Step::Read(reads) => {
                for read in reads {
                    let bytes = fetch(repository, &read)
                        .await
                        .map_err(|error| AttachError::Fetch(Box::new(error)))?;
                    import
                        .give(&read, bytes.into())
                        .map_err(|error| AttachError::Import(Box::new(error)))?;
                }
            }
        }
    }
}

/// Times that a range of metadata is asked for.
const ATTEMPTS_MAX: u32 = 4;

async fn fetch(repository: &Repository, read: &Read) -> Result<Bytes, SourceError> {
    let mut attempt = 1;
    loop {
        match repository.read_range(&read.blob, read.range.clone()).await {
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

type Preparation = (ImageRecord, Vec<Prepared>, Vec<u8>);

/// Places the tree's chunks and writes its metadata image.
fn prepare(tree: &Tree, digest: &Digest) -> Result<Preparation, AttachError> {
    let sizes = tree.map.blobs.iter().map(|blob| blob.device_bytes);
    let bytes = sizes.fold(0, u64::saturating_add);
    if bytes > DEVICES_BYTES_MAX {
        return Err(AttachError::TooLarge { bytes });
    }
    let mut devices = Vec::new();
    for (index, blob) in (0..).zip(&tree.map.blobs) {
        let map = DeviceMap::new(&tree.map, BlobId(index)).map_err(AttachError::Map)?;
        let encoded = encode_map(&map);
        let key = device_key(&blob.digest, &encoded);
        devices.push(Prepared {
            key,
            blob: blob.digest,
            map: Arc::new(map),
            encoded,
        });
    }
    let mut metadata = Vec::new();
    draught_erofs::write(
        tree,
        &Placement::of_blobs(&tree.map),
        &Options::default(),
        &mut metadata,
    )
    .map_err(|error| AttachError::Write(Box::new(error)))?;
    let record = ImageRecord {
        version: VERSION,
        digest: digest.to_string(),
        devices: devices.iter().map(Prepared::record).collect(),
    };
    Ok((record, devices, metadata))
}

impl Prepared {
    /// The size of its file in bytes: at least a block, since the kernel takes no empty device.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.bytes().max(BLOCK_BYTES)
    }

    fn record(&self) -> DeviceRecord {
        DeviceRecord {
            key: self.key.hex(),
            blob: self.blob.to_string(),
            bytes: self.bytes(),
        }
    }
}

impl Attached {
    /// Its name in the store: it covers everything that is kept, so what is kept under a name never
    /// changes while something of that name is mounted.
    pub(crate) fn name(&self) -> String {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(self.record.digest.as_bytes());
        hasher.update(&self.metadata);
        for device in &self.devices {
            hasher.update(device.key.as_bytes());
        }
        hasher.finish().hex()
    }

    /// Keeps what a worker needs to serve it without asking anybody.
    ///
    /// What is there already stays, file by file: whether a mount is in use is asked of the very file that
    /// it was made from, and another one in its place would say "no". Not to be called by two threads at once.
    pub(crate) fn keep(&self, store: &Store) -> io::Result<()> {
        let name = self.name();
        let put = |file: &str, bytes: &[u8]| match store.read_image_file(&name, file) {
            Ok(there) if there == bytes => Ok(()),
            _ => store.put_image_file(&name, file, bytes),
        };
        for (index, device) in self.devices.iter().enumerate() {
            put(&map_file(index), &device.encoded)?;
        }
        put(METADATA, &self.metadata)?;
        // Last: what has a record is whole.
        put(RECORD, &self.record.encode()?)
    }
}
