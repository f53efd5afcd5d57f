//! One image of an archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::{Digest, Hasher};
use draught_oci::{
    Any, Descriptor, Document, ImageConfig, Limits, Manifest, Reference, Selector, media_type,
};
use serde::Deserialize;

use super::reader::Files;
use crate::error::SourceError;
use crate::local::LocalBlob;

/// What lists the images.
const LIST_FILE: &str = "manifest.json";

/// Bytes hashed at a time.
const HASH_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// One image of a docker archive.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Image>);

#[derive(Debug)]
struct Image {
    path: PathBuf,
    manifest: Document<Manifest>,
    blobs: BTreeMap<Digest, LocalBlob>,
    tags: Vec<String>,
}

impl Archive {
    /// Opens an archive; blocks. `reference` names one of its images and may be left out when it has one.
    ///
    /// # Errors
    /// When the file is none, or has no such image.
    pub fn open(path: &Path, reference: Option<&Reference>) -> Result<Self, SourceError> {
        let opening = Opening {
            path,
            files: Files::open(path)?,
        };
        let limits = Limits::default();
        let list = opening.read(LIST_FILE, &limits)?;
        let images: Vec<WireImage> = serde_json::from_slice(&list)
            .map_err(|error| opening.wrong(format!("its {LIST_FILE} is malformed: {error}")))?;
        let image = choose(path, images, reference)?;
        opening
            .image(image, &limits)
            .map(|image| Self(Arc::new(image)))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn label(&self) -> String {
        format!("docker-archive:{}", self.0.path.display())
    }

    /// The manifest that was made for the image.
    pub(crate) fn only(&self) -> Selector {
        Selector::Digest(self.0.manifest.digest())
    }

    pub(crate) fn manifest(&self, selector: &Selector) -> Result<Any, SourceError> {
        let is_this = match selector {
            Selector::Digest(digest) => *digest == self.0.manifest.digest(),
            Selector::Tag(tag) => self.0.tags.contains(tag),
        };
        if is_this {
            return Ok(Any::Manifest(self.0.manifest.clone()));
        }
        Err(SourceError::NoSuchImage {
            what: self.label(),
            selector: selector.to_string(),
            available: self.0.tags.join(", "),
        })
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Result<LocalBlob, SourceError> {
        let found = self.0.blobs.get(digest).cloned();
        found.ok_or_else(|| SourceError::NoSuchBlob {
            what: self.label(),
            digest: *digest,
        })
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.0.blobs.contains_key(digest)
    }

    pub(crate) fn tags(&self) -> Vec<String> {
        self.0.tags.clone()
    }
}

/// An archive on its way to an image.
struct Opening<'a> {
    path: &'a Path,
    files: Files,
}

impl Opening<'_> {
    fn wrong(&self, reason: String) -> SourceError {
        SourceError::Format {
            path: self.path.to_owned(),
            expected: "a docker archive",
            reason,
        }
    }

    fn find(&self, name: &str) -> Result<LocalBlob, SourceError> {
        let found = self.files.find(name);
        found.ok_or_else(|| self.wrong(format!("it has no file {name:?}")))
    }

    /// A small file.
    fn read(&self, name: &str, limits: &Limits) -> Result<Vec<u8>, SourceError> {
        let blob = self.find(name)?;
        let limit_bytes = u64::try_from(limits.document_bytes_max).unwrap_or(u64::MAX);
        if blob.bytes > limit_bytes {
            return Err(SourceError::TooLong {
                what: name.to_owned(),
                limit_bytes,
            });
        }
        let digest = Digest::sha256(name.as_bytes());
        Ok(blob.read(&digest, &(0..blob.bytes))?.to_vec())
    }

    fn image(&self, wire: WireImage, limits: &Limits) -> Result<Image, SourceError> {
        let config = self.read(&wire.config, limits)?;
        let config_blob = self.find(&wire.config)?;
        let config: Document<ImageConfig> =
            Document::parse(config, limits).map_err(|source| SourceError::Document {
                what: format!("{}, configuration {:?}", self.path.display(), wire.config),
                source: Box::new(source),
            })?;
        let names = wire.layers.unwrap_or_default();
        if names.len() != config.diff_ids.len() {
            let (layers, ids) = (names.len(), config.diff_ids.len());
            return Err(self.wrong(format!("it has {layers} layers, its configuration {ids}")));
        }
        let mut blobs = BTreeMap::from([(config.digest(), config_blob)]);
        let mut layers = Vec::with_capacity(names.len());
        for (name, diff_id) in names.iter().zip(&config.diff_ids) {
            let blob = self.find(name)?;
            let layer = layer(name, &blob, diff_id)?;
            blobs.insert(layer.digest, blob);
            layers.push(layer);
        }
        let manifest = Document::write(Manifest::new(config.descriptor(), layers));
        let tags = wire.repo_tags.unwrap_or_default();
        Ok(Image {
            path: self.path.to_owned(),
            manifest,
            blobs,
            tags: tags
                .iter()
                .filter_map(|tag| tag.parse::<Reference>().ok()?.tag().map(str::to_owned))
                .collect(),
        })
    }
}

/// The image that was asked for.
fn choose(
    path: &Path,
    images: Vec<WireImage>,
    reference: Option<&Reference>,
) -> Result<WireImage, SourceError> {
    let all: Vec<String> = images
        .iter()
        .flat_map(|image| image.repo_tags.clone())
        .flatten()
        .collect();
    let no_such = |selector: String| SourceError::NoSuchImage {
        what: format!("docker-archive:{}", path.display()),
        selector,
        available: all.join(", "),
    };
    let wanted = |image: &WireImage| match reference {
        None => true,
        Some(reference) => image.repo_tags.iter().flatten().any(|name| {
            name.parse::<Reference>().is_ok_and(|name| {
                name.name() == reference.name() && name.selector() == reference.selector()
            })
        }),
    };
    let mut found = images.into_iter().filter(wanted);
    match (found.next(), found.next(), reference) {
        (Some(image), None, _) | (Some(image), Some(_), Some(_)) => Ok(image),
        (_, _, Some(reference)) => Err(no_such(reference.to_string())),
        (_, _, None) => Err(no_such("(name one)".to_owned())),
    }
}

/// What a layer is: an uncompressed one has its diff id for a digest; others are hashed, unless their name
/// tells, which the read then verifies.
fn layer(name: &str, blob: &LocalBlob, diff_id: &Digest) -> Result<Descriptor, SourceError> {
    let magic = blob.read(diff_id, &(0..blob.bytes.min(4)))?;
    let media_type = match magic.as_ref() {
        [0x1f, 0x8b, ..] => media_type::LAYER_TAR_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::LAYER_TAR_ZSTD,
        _ => {
            return Ok(Descriptor::new(media_type::LAYER_TAR, *diff_id, blob.bytes));
        }
    };
    let named = name
        .strip_prefix("blobs/sha256/")
        .and_then(|hex| format!("sha256:{hex}").parse().ok());
    let digest = match named {
        Some(digest) => digest,
        None => hash(blob, diff_id)?,
    };
    Ok(Descriptor::new(media_type, digest, blob.bytes))
}

/// The digest of a blob in the archive.
fn hash(blob: &LocalBlob, diff_id: &Digest) -> Result<Digest, SourceError> {
    let mut hasher = Hasher::new(diff_id.algorithm());
    let mut position = 0;
    while position < blob.bytes {
        let end = blob.bytes.min(position.saturating_add(HASH_BYTES));
        let piece = blob.read(diff_id, &(position..end))?;
        hasher.update(&piece);
        position = end;
    }
    Ok(hasher.finish())
}
