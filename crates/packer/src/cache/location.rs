//! Which caches, as a person writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use draught_oci::{Reference, ReferenceError};
use draught_source::{Client, Repository};

use super::backend::{BuildCache, CacheError};
use super::open;

/// How many layers a cache keeps when nobody says: some images' worth.
pub const CACHE_LAYERS_DEFAULT: usize = 50;

/// How many layers a cache keeps at most: its manifest has two descriptors for each, of some 600 bytes
/// together, and registries take 4 MiB.
pub const CACHE_LAYERS_MAX: usize = 1000;

/// Where a build cache is: `dir:PATH`, `registry:HOST/REPO:TAG` or `inline`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheLocation {
    /// A directory of its own.
    Directory(PathBuf),
    /// A tag in a registry.
    Registry(Reference),
    /// The converted image itself: the one that the destination's tag stands for is used, the new one says
    /// what its layers are.
    Inline,
}

impl CacheLocation {
    /// Opens the cache that is there, for a conversion that writes `tag` in `to`; it is to keep `layers_max`
    /// layers, 1 to [`CACHE_LAYERS_MAX`].
    ///
    /// # Errors
    /// When there can be no cache, it can't be read, or something else is there.
    pub async fn open(
        &self,
        client: &Client,
        to: &Repository,
        tag: &str,
        layers_max: usize,
    ) -> Result<Arc<dyn BuildCache>, CacheError> {
        let layers_max = layers_max.clamp(1, CACHE_LAYERS_MAX);
        Box::pin(open::open(client, self, to, tag, layers_max)).await
    }
}

/// Why a text is no cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheLocationError {
    /// It is none of the forms.
    #[error("{text:?} is none of dir:PATH, registry:HOST/REPO:TAG, inline")]
    Form {
        /// What was given.
        text: String,
    },
    /// The reference is malformed.
    #[error("{text:?} does not name a tag in a registry")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// It is a digest, under which nothing can be written.
    #[error("{text:?} names a digest: a build cache needs a tag")]
    Digest {
        /// What was given.
        text: String,
    },
}

impl FromStr for CacheLocation {
    type Err = CacheLocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = || text.to_owned();
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            Some(("registry", reference)) => {
                let reference: Reference = reference.parse().map_err(|source| {
                    let text = given();
                    CacheLocationError::Reference { text, source }
                })?;
                if reference.digest().is_some() {
                    return Err(CacheLocationError::Digest { text: given() });
                }
                Ok(Self::Registry(reference))
            }
            None if text == "inline" => Ok(Self::Inline),
            _ => Err(CacheLocationError::Form { text: given() }),
        }
    }
}

impl fmt::Display for CacheLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Registry(reference) => write!(f, "registry:{reference}"),
            Self::Inline => f.write_str("inline"),
        }
    }
}

/// Which caches a conversion uses, and how large they may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Each is read and written; a layer is taken from the first that has it.
    pub locations: Vec<CacheLocation>,
    /// How many layers each keeps: 1 to [`CACHE_LAYERS_MAX`], what is more counts as that.
    pub layers_max: usize,
}

impl Default for CacheOptions {
    /// None.
    fn default() -> Self {
        Self {
            locations: Vec::new(),
            layers_max: CACHE_LAYERS_DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints() {
        for text in [
            "dir:/var/cache",
            "dir:a",
            "registry:127.0.0.1:5000/a/b:c",
            "inline",
        ] {
            let location: CacheLocation = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
        }
        let digest = format!("registry:a.example/b@sha256:{}", "0".repeat(64));
        for text in ["", "dir:", "inline:", "registry:", "b.example/a:c", &digest] {
            text.parse::<CacheLocation>().unwrap_err();
        }
    }
}
