//! What all caches have in common: records in a repository.

use std::sync::{Mutex, PoisonError};

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Manifest, media_type};
use draught_source::{Payload, Repository};

use super::backend::{CacheError, CacheHit, CachedLayer};
use super::document::{self, CONFIG};
use super::key::CacheKey;

/// Bytes of a record, which is held in memory: that of a layer with a million files has some twenty MiB.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// Records in a repository: those that were found, and those that were used.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) repository: Repository,
    found: Vec<CachedLayer>,
    used: Mutex<Vec<CachedLayer>>,
}

impl Shelf {
    pub(super) fn new(repository: Repository, found: Vec<CachedLayer>) -> Self {
        Self {
            repository,
            found,
            used: Mutex::default(),
        }
    }

    /// Those that were used, in that order.
    pub(super) fn used(&self) -> Vec<CachedLayer> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.clone()
    }

    /// See [`super::BuildCache::get`].
    pub(super) async fn get(&self, key: &CacheKey) -> Result<Option<CacheHit>, CacheError> {
        // Images of one index have layers in common.
        let used = self.used();
        let mut layers = self.found.iter().chain(&used);
        let Some(layer) = layers.find(|layer| layer.key == *key) else {
            return Ok(None);
        };
        let read = async {
            let stream = self.repository.blob(&layer.record).await?;
            stream.into_bytes(RECORD_BYTES_MAX).await
        };
        let record = read.await.map_err(|source| CacheError::Read {
            what: format!("record {}", layer.record.digest),
            source,
        })?;
        Ok(Some(CacheHit {
            layer: layer.clone(),
            record: record.to_vec(),
        }))
    }

    /// See [`super::BuildCache::put`].
    pub(super) async fn put(&self, layer: &CachedLayer, record: &[u8]) -> Result<(), CacheError> {
        if self.found.contains(layer) {
            return Ok(());
        }
        let payload = Payload::from(record.to_vec());
        let push = self.repository.push_blob(&layer.record, &payload, &[]);
        push.await.map(drop).map_err(|source| CacheError::Write {
            what: format!("record {}", layer.record.digest),
            source,
        })
    }

    /// See [`super::BuildCache::finish_image`].
    pub(super) fn count_used(&self, layers: &[CachedLayer]) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            if !used.contains(layer) {
                used.push(layer.clone());
            }
        }
    }

    /// Those of the layers whose record and blob are there.
    pub(super) async fn whole(
        &self,
        layers: Vec<CachedLayer>,
    ) -> Result<Vec<CachedLayer>, CacheError> {
        let mut whole = Vec::with_capacity(layers.len());
        for layer in layers {
            let mut is_whole = self.has(&layer.record).await?;
            if let Some(blob) = &layer.blob {
                is_whole = is_whole && self.has(blob).await?;
            }
            if is_whole {
                whole.push(layer);
            }
        }
        Ok(whole)
    }

    async fn has(&self, blob: &Descriptor) -> Result<bool, CacheError> {
        let has = self.repository.has_blob(&blob.digest).await;
        has.map_err(|source| CacheError::Read {
            what: format!("blob {}", blob.digest),
            source,
        })
    }

    /// Writes the manifest of a cache, with its configuration.
    pub(super) async fn write(
        &self,
        tag: Option<&str>,
        manifest: Document<Manifest>,
    ) -> Result<(), CacheError> {
        let config = Descriptor::new(
            media_type::EMPTY,
            Digest::sha256(CONFIG),
            CONFIG.len() as u64,
        );
        let write = async {
            let payload = Payload::from(CONFIG.to_vec());
            self.repository.push_blob(&config, &payload, &[]).await?;
            let manifest = Any::Manifest(manifest);
            self.repository.put_manifest(tag, &manifest).await
        };
        write.await.map_err(|source| CacheError::Write {
            what: "the manifest".to_owned(),
            source,
        })
    }
}

/// The cache under a tag, with the digest of its manifest; nothing if there is no such tag.
pub(super) async fn tagged(
    repository: &Repository,
    tag: &str,
    what: &str,
) -> Result<(Vec<CachedLayer>, Option<Digest>), CacheError> {
    let selector = draught_oci::Selector::Tag(tag.to_owned());
    match repository.manifest(&selector).await {
        Ok(Any::Manifest(manifest)) => {
            let layers = document::read(&manifest, what)?;
            Ok((layers, Some(manifest.digest())))
        }
        Ok(Any::Index(_)) => Err(CacheError::Foreign {
            what: what.to_owned(),
            why: "it is an index".to_owned(),
        }),
        Err(error) if error.is_not_found() => Ok((Vec::new(), None)),
        Err(source) => Err(CacheError::Read {
            what: "the manifest".to_owned(),
            source,
        }),
    }
}
