//! From a location to the cache that is there.

use std::sync::Arc;

use draught_source::{Client, Repository};

use super::backend::{BuildCache, CacheError};
use super::directory::DirectoryCache;
use super::inline::InlineCache;
use super::location::CacheLocation;
use super::registry::{RegistryCache, tag_of};
use crate::blocking::blocking;

/// Opens a cache of `layers_max` layers for a conversion that writes `tag` in `to`.
///
/// # Errors
/// When there can be no cache, it can't be read, or something else is there.
pub(super) async fn open(
    client: &Client,
    location: &CacheLocation,
    to: &Repository,
    tag: &str,
    layers_max: usize,
) -> Result<Arc<dyn BuildCache>, CacheError> {
    let is_destination = CacheError::Unsupported {
        why: "the image itself is to be written there",
    };
    Ok(match location {
        CacheLocation::Directory(dir) => {
            if let Repository::Layout(layout) = to {
                let (layout, other) = (layout.dir().to_owned(), dir.clone());
                let real = |path| fs_err::canonicalize(path).ok();
                let is_same = move || real(layout).is_some_and(|it| Some(it) == real(other));
                if blocking(is_same).await {
                    return Err(is_destination);
                }
            }
            Arc::new(DirectoryCache::open(client, dir, layers_max).await?)
        }
        CacheLocation::Registry(reference) => {
            let registry = client.registry(reference.host(), reference.repository());
            let registry = registry.map_err(|source| CacheError::Read {
                what: reference.to_string(),
                source,
            })?;
            if let Repository::Registry(to) = to
                && (to.host(), to.name()) == (registry.host(), registry.name())
                && tag == tag_of(reference)
            {
                return Err(is_destination);
            }
            Arc::new(RegistryCache::open(registry, reference, layers_max).await?)
        }
        CacheLocation::Inline => Arc::new(InlineCache::open(to, tag, layers_max).await?),
    })
}
