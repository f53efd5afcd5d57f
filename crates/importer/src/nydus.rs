//! The steps of an image whose metadata is in one layer.

use std::collections::BTreeMap;

use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_rafs::bootstrap::{self, Need, Reader};

use crate::annotation::BLOB_BACKEND;
use crate::import::{Details, ImportError, Limits, Next, Nydus, Opened, Read};
use crate::metadata_layer::metadata_from_layer;

/// A nydus image that is being opened.
#[derive(Debug)]
pub(crate) struct NydusImport {
    layer: Descriptor,
    blobs: BTreeMap<Digest, u64>,
    /// Whether blobs may be outside of the manifest.
    pub(crate) blobs_elsewhere: bool,
    limits: Limits,
    bootstrap: Option<Vec<u8>>,
    given: BTreeMap<(Digest, u64), Vec<u8>>,
}

impl NydusImport {
    pub(crate) fn new(
        layer: Descriptor,
        blobs: &[Descriptor],
        limits: &Limits,
    ) -> Result<Self, ImportError> {
        if layer.size > limits.layer_bytes_max {
            return Err(ImportError::TooLarge {
                bytes: layer.size,
                limit: limits.layer_bytes_max,
            });
        }
        Ok(Self {
            blobs: blobs.iter().map(|blob| (blob.digest, blob.size)).collect(),
            blobs_elsewhere: false,
            layer,
            limits: *limits,
            bootstrap: None,
            given: BTreeMap::new(),
        })
    }

    pub(crate) fn step(&mut self) -> Result<Next, ImportError> {
        let Some(bytes) = &self.bootstrap else {
            let read = Read {
                blob: self.layer.digest,
                range: 0..self.layer.size,
                whole: true,
            };
            return Ok(Next::Read(vec![read]));
        };
        let mut reader =
            Reader::open(bytes, None, &self.limits.bootstrap).map_err(ImportError::Bootstrap)?;
        let named = reader.blobs().iter().filter_map(|info| info.digest);
        let foreign: Vec<_> = named
            .filter(|blob| !self.blobs.contains_key(blob))
            .collect();
        match foreign.first() {
            Some(_) if self.blobs_elsewhere => return Ok(Next::Sizes(foreign)),
            Some(blob) => {
                return Err(ImportError::ForeignBlob {
                    blob: *blob,
                    backend: self.layer.annotations.get(BLOB_BACKEND).cloned(),
                });
            }
            None => {}
        }
        let missing = reader
            .needs()
            .iter()
            .filter(|need| !self.given.contains_key(&key(need)));
        let missing = missing.map(|need| Read {
            blob: need.blob,
            range: need.range.clone(),
            whole: false,
        });
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            return Ok(Next::Read(missing));
        }
        for need in reader.needs().to_vec() {
            let bytes = self.given.remove(&key(&need)).unwrap_or_default();
            reader.give(&need, bytes).map_err(ImportError::Bootstrap)?;
        }
        let read = reader.finish().map_err(ImportError::Bootstrap)?;
        self.opened(read).map(Box::new).map(Next::Done)
    }

    /// Takes the size of a blob that is no layer.
    pub(crate) fn give_size(&mut self, blob: &Digest, bytes: u64) {
        self.blobs.entry(*blob).or_insert(bytes);
    }

    /// Takes bytes of the right number that were asked for.
    pub(crate) fn give(&mut self, read: &Read, bytes: Vec<u8>) -> Result<(), ImportError> {
        let (blob, start) = (read.blob, read.range.start);
        if self.bootstrap.is_some() {
            self.given.insert((blob, start), bytes);
            return Ok(());
        }
        let digest = blob.algorithm().digest(&bytes);
        if digest != blob {
            return Err(ImportError::Corrupt { blob, got: digest });
        }
        let bootstrap = metadata_from_layer(&bytes, self.limits.metadata_bytes_max);
        let layer = blob;
        let bootstrap = bootstrap.map_err(|source| ImportError::MetadataLayer { layer, source })?;
        self.bootstrap = Some(bootstrap);
        Ok(())
    }

    fn opened(&mut self, read: bootstrap::Bootstrap) -> Result<Opened, ImportError> {
        let mut tree = read.tree;
        for blob in &mut tree.map.blobs {
            // Some bootstraps know no more than the size of the data.
            if let Some(size) = self.blobs.get(&blob.digest) {
                blob.stored_bytes = *size;
            }
        }
        for extent in &tree.map.extents {
            let Some(blob) = tree.map.blob(extent.blob) else {
                continue;
            };
            let end = extent.offset.0.saturating_add(extent.stored_bytes.into());
            if end > blob.stored_bytes {
                return Err(ImportError::BlobEnd {
                    blob: blob.digest,
                    bytes: blob.stored_bytes,
                });
            }
        }
        Ok(Opened {
            tree,
            prefetch: read.prefetch,
            details: Details::Nydus(Nydus {
                bootstrap: self.bootstrap.take().unwrap_or_default(),
                blobs: read.blobs,
                chunk_indexes: read.chunk_indexes,
                chunk_bytes: read.chunk_bytes,
                compression: read.compression,
                digester: read.digester,
            }),
        })
    }
}

fn key(need: &Need) -> (Digest, u64) {
    (need.blob, need.range.start)
}
