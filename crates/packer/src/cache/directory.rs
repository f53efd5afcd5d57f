//! A cache in a directory: an OCI layout with nothing else in it.
//!
//! Whoever writes it holds a lock on the file that makes it a layout. What falls out of the cache is deleted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use draught_oci::{Content as _, Index, Limits, Location, Manifest, Selector, annotation};
use draught_source::{BlobBackend, Client};
use futures_util::future::BoxFuture;

use super::backend::{BuildCache, CacheError, CacheHit, CachedLayer};
use super::document;
use super::key::CacheKey;
use super::shelf::{Shelf, tagged};
use crate::blocking::blocking;

/// What the cache's manifest is called in the layout.
const TAG: &str = "draught-cache";

/// A directory, and what it held when it was opened.
#[derive(Debug)]
pub(super) struct DirectoryCache {
    dir: PathBuf,
    shelf: Shelf,
    layers_max: usize,
}

impl DirectoryCache {
    pub(super) async fn open(
        client: &Client,
        dir: &Path,
        layers_max: usize,
    ) -> Result<Self, CacheError> {
        let location = Location::OciLayout {
            dir: dir.to_owned(),
            selector: Some(Selector::Tag(TAG.to_owned())),
        };
        let created = client.create(&location).await;
        let (repository, _) = created.map_err(|source| CacheError::Write {
            what: dir.display().to_string(),
            source,
        })?;
        let dir = dir.to_owned();
        let dir = blocking(move || check_alone(&dir).map(|()| dir)).await?;
        let (found, _) = tagged(&repository, TAG, &dir.display().to_string()).await?;
        Ok(Self {
            dir,
            shelf: Shelf::new(repository, found),
            layers_max,
        })
    }

    async fn merge_and_write(&self) -> Result<usize, CacheError> {
        let marker = self.dir.join("oci-layout");
        // Released when it is closed.
        let lock = blocking(move || {
            let file = fs_err::File::open(marker)?;
            file.file().lock()?;
            Ok(file)
        });
        let _lock = lock.await.map_err(|source| CacheError::Lock { source })?;
        let what = self.dir.display().to_string();
        let (current, digest) = tagged(&self.shelf.repository, TAG, &what).await?;
        // What was there when it was used may have fallen out meanwhile.
        let used = self.shelf.whole(self.shelf.used()).await?;
        let others = self.shelf.whole(current.clone()).await?;
        let merged = document::merge(&used, &others, self.layers_max);
        if merged == current {
            return Ok(merged.len());
        }
        let manifest = document::write(&merged, None);
        let kept: BTreeSet<_> = manifest.blobs().map(|blob| blob.digest).collect();
        self.shelf.write(Some(TAG), manifest).await?;
        let blobs = current.iter().flat_map(|layer| {
            let blob = layer.blob.as_ref().map(|blob| blob.digest);
            std::iter::once(layer.record.digest).chain(blob)
        });
        let gone: BTreeSet<_> = blobs.filter(|digest| !kept.contains(digest)).collect();
        for digest in gone.iter().chain(&digest) {
            // What can't be deleted takes room and does no harm.
            drop(self.shelf.repository.delete_blob(digest).await);
        }
        Ok(merged.len())
    }
}

/// Refuses a layout with images in it: what falls out of the cache could be part of one.
fn check_alone(dir: &Path) -> Result<(), CacheError> {
    let foreign = |why: String| CacheError::Foreign {
        what: dir.display().to_string(),
        why,
    };
    let index = fs_err::read(dir.join("index.json")).map_err(|error| foreign(error.to_string()))?;
    let index = Index::decode(&index, &Limits::default());
    let index = index.map_err(|error| foreign(error.to_string()))?;
    let is_ours = |name: Option<&str>| name == Some(TAG);
    let mut names = index.manifests.iter();
    if names.all(|manifest| is_ours(manifest.annotation(annotation::REF_NAME))) {
        return Ok(());
    }
    Err(foreign(
        "it is a layout with images in it; a cache needs a directory of its own".to_owned(),
    ))
}

impl BuildCache for DirectoryCache {
    fn label(&self) -> String {
        format!("dir:{}", self.dir.display())
    }

    fn blobs(&self) -> &dyn BlobBackend {
        &self.shelf.repository
    }

    fn get<'a>(&'a self, key: &'a CacheKey) -> BoxFuture<'a, Result<Option<CacheHit>, CacheError>> {
        Box::pin(self.shelf.get(key))
    }

    fn put<'a>(
        &'a self,
        layer: &'a CachedLayer,
        record: &'a [u8],
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(self.shelf.put(layer, record))
    }

    fn finish_image<'a>(
        &'a self,
        layers: &'a [CachedLayer],
        _: &'a mut Manifest,
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        self.shelf.count_used(layers);
        Box::pin(async { Ok(()) })
    }

    fn commit(&self) -> BoxFuture<'_, Result<usize, CacheError>> {
        Box::pin(self.merge_and_write())
    }
}
