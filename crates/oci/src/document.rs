//! Documents: bytes, their digest and what they say.

use draught_digest::Digest;
use serde_json::Value;

use crate::descriptor::{Descriptor, DescriptorError};
use crate::manifest::{Index, Manifest};
use crate::media_type;
use crate::wire::WireManifest;

/// Bounds on what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest, index or configuration. Registries refuse manifests above 4 MiB, so nobody has
    /// a larger one.
    pub document_bytes_max: usize,
    /// Descriptors in one document. Docker stops at 127 layers, and indexes with attestations for all
    /// platforms hold a few dozen; the rest is room.
    pub descriptors_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes_max: 4 << 20,
            descriptors_max: 4096,
        }
    }
}

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is too long.
    #[error("document of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// It lists too much.
    #[error("document with {count} descriptors is over the limit of {limit}")]
    TooMany {
        /// Descriptors in it.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// It is no JSON, or not of this shape.
    #[error("{kind} is not well-formed JSON of its kind")]
    Json {
        /// What it should have been.
        kind: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A descriptor in it is wrong.
    #[error("{field} of the {kind} is not a valid descriptor")]
    Descriptor {
        /// What it is in.
        kind: &'static str,
        /// Which one.
        field: String,
        /// What is wrong with it.
        source: DescriptorError,
    },
    /// A layer digest of the configuration is wrong.
    #[error("rootfs.diff_ids[{index}] of the image configuration is not a valid digest")]
    DiffId {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        source: DescriptorError,
    },
    /// Docker's first format.
    #[error(
        "manifest is docker schema 1, which is not supported: push the image again with a current tool"
    )]
    Schema1,
    /// Not version 2.
    #[error("{kind} has schemaVersion {version}: only 2 is known")]
    SchemaVersion {
        /// What it is.
        kind: &'static str,
        /// What it says.
        version: u32,
    },
    /// It has another media type than it was asked for or delivered with.
    #[error("document says that it is {found:?}, but {expected:?} was expected")]
    MediaType {
        /// What was expected.
        expected: String,
        /// What it says.
        found: String,
    },
    /// Neither manifest nor index.
    #[error("media type {media_type:?} is neither a manifest nor an index")]
    UnknownMediaType {
        /// What it is called.
        media_type: String,
    },
    /// It has the fields of a manifest and of an index, so two readers could take it for two images.
    #[error("document has the fields of both a manifest and an index")]
    Ambiguous,
    /// A field that must be there is not.
    #[error("{kind} has no {field}")]
    Missing {
        /// What it is.
        kind: &'static str,
        /// What is not there.
        field: &'static str,
    },
    /// `rootfs.type` is not `layers`.
    #[error("rootfs.type of the image configuration is {found:?}: only \"layers\" is known")]
    Rootfs {
        /// What it says.
        found: String,
    },
}

/// What a [`Document`] can hold: [`Manifest`], [`Index`] or [`crate::ImageConfig`].
pub trait Content: Sized {
    /// Its name in errors.
    const KIND: &'static str;

    /// Reads and checks it.
    ///
    /// # Errors
    /// When it is malformed or beyond the limits.
    fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, ParseError>;

    /// Writes it: the same content gives the same bytes.
    #[must_use]
    fn encode(&self) -> Vec<u8>;

    /// What it is.
    #[must_use]
    fn media_type(&self) -> &str;
}

/// The bytes of a document, their digest, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    bytes: Vec<u8>,
    digest: Digest,
    content: T,
}

impl<T: Content> Document<T> {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is malformed or beyond the limits.
    pub fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Self, ParseError> {
        check_length(&bytes, limits)?;
        let content = T::decode(&bytes, limits)?;
        Ok(Self {
            digest: Digest::sha256(&bytes),
            bytes,
            content,
        })
    }

    /// Writes a new document: the same content gives the same bytes.
    #[must_use]
    pub fn write(content: T) -> Self {
        let bytes = content.encode();
        Self {
            digest: Digest::sha256(&bytes),
            bytes,
            content,
        }
    }

    /// The same document with a change made to its JSON; what the change does not touch stays, fields that
    /// we do not know included. Keys come out sorted.
    ///
    /// # Errors
    /// When what comes out is no such document any more.
    pub fn edit(
        &self,
        limits: &Limits,
        change: impl FnOnce(&mut Value),
    ) -> Result<Self, ParseError> {
        let json = |source| ParseError::Json {
            kind: T::KIND,
            source,
        };
        let mut value = serde_json::from_slice(&self.bytes).map_err(json)?;
        change(&mut value);
        Self::parse(serde_json::to_vec(&value).map_err(json)?, limits)
    }

    /// The stored bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The stored bytes, without the rest.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// SHA-256 of the stored bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the bytes say.
    #[must_use]
    pub fn content(&self) -> &T {
        &self.content
    }

    /// A descriptor of the stored bytes.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let size = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        Descriptor::new(self.content.media_type(), self.digest, size)
    }
}

impl<T> std::ops::Deref for Document<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

/// A manifest or an index: what a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one or two exist per image; a box would be in every caller's pattern"
)]
pub enum Any {
    /// One image.
    Manifest(Document<Manifest>),
    /// Images for several platforms.
    Index(Document<Index>),
}

impl Any {
    /// Reads a document that came as `media_type`; empty when nothing told, then its own field decides.
    ///
    /// # Errors
    /// When it is malformed, beyond the limits, something else, or could be both.
    pub fn parse(bytes: Vec<u8>, media_type: &str, limits: &Limits) -> Result<Self, ParseError> {
        check_length(&bytes, limits)?;
        let media_type = match media_type::essence(media_type) {
            told if told.is_empty() => told_by_itself(&bytes)?,
            told => told,
        };
        let document = if media_type::is_manifest(&media_type) {
            Self::Manifest(Document::parse(bytes, limits)?)
        } else if media_type::is_index(&media_type) {
            Self::Index(Document::parse(bytes, limits)?)
        } else if [
            media_type::DOCKER_SCHEMA1,
            media_type::DOCKER_SCHEMA1_SIGNED,
        ]
        .contains(&media_type.as_str())
        {
            return Err(ParseError::Schema1);
        } else {
            return Err(ParseError::UnknownMediaType { media_type });
        };
        // What one reader takes from the header, another takes from the document: they must agree.
        if document.media_type() != media_type {
            return Err(ParseError::MediaType {
                expected: media_type,
                found: document.media_type().to_owned(),
            });
        }
        Ok(document)
    }

    /// What it is.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest.content().media_type(),
            Self::Index(index) => index.content().media_type(),
        }
    }

    /// The stored bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Manifest(manifest) => manifest.bytes(),
            Self::Index(index) => index.bytes(),
        }
    }

    /// SHA-256 of the stored bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Manifest(manifest) => manifest.digest(),
            Self::Index(index) => index.digest(),
        }
    }

    /// A descriptor of the stored bytes.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        match self {
            Self::Manifest(manifest) => manifest.descriptor(),
            Self::Index(index) => index.descriptor(),
        }
    }

    /// The manifest that this one is about.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.content().subject.as_ref(),
            Self::Index(index) => index.content().subject.as_ref(),
        }
    }
}

/// The media type by what is in the document: `mediaType` was optional in OCI's first version.
fn told_by_itself(bytes: &[u8]) -> Result<String, ParseError> {
    let wire: WireManifest = serde_json::from_slice(bytes).map_err(|source| ParseError::Json {
        kind: "manifest or index",
        source,
    })?;
    Ok(match wire {
        WireManifest {
            media_type: Some(media_type),
            ..
        } => media_type::essence(&media_type),
        WireManifest {
            fs_layers: Some(_), ..
        } => return Err(ParseError::Schema1),
        WireManifest {
            manifests: Some(_), ..
        } => media_type::INDEX.to_owned(),
        _ => media_type::MANIFEST.to_owned(),
    })
}

/// Refuses what is over the limit before anything is parsed.
fn check_length(bytes: &[u8], limits: &Limits) -> Result<(), ParseError> {
    if bytes.len() > limits.document_bytes_max {
        return Err(ParseError::TooLong {
            bytes: bytes.len(),
            limit_bytes: limits.document_bytes_max,
        });
    }
    Ok(())
}
