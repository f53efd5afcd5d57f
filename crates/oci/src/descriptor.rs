//! Descriptors: a digest, a size and what is behind them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use draught_digest::{Algorithm, Digest, ParseDigestError};

use crate::platform::Platform;
use crate::wire::{WireDescriptor, nonempty};

/// A named, sized, typed blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// SHA-256 of the stored bytes.
    pub digest: Digest,
    /// Stored bytes.
    pub size: u64,
    /// Where else it may be had; we do not follow them.
    pub urls: Vec<String>,
    /// What its writer says of it.
    pub annotations: BTreeMap<String, String>,
    /// The blob itself, when its writer embedded it. Verified when parsed.
    pub data: Option<Vec<u8>>,
    /// In an index: what the manifest runs on.
    pub platform: Option<Platform>,
    /// What kind of artifact the manifest behind it is.
    pub artifact_type: Option<String>,
}

/// Why a descriptor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// It has a digest that OCI allows and we do not know, such as SHA-512.
    #[error(
        "digest {digest:?} is not SHA-256, the only algorithm supported for blobs and manifests"
    )]
    Algorithm {
        /// As the document has it.
        digest: String,
    },
    /// Its digest is none.
    #[error("digest {digest:?} is malformed")]
    Digest {
        /// As the document has it.
        digest: String,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// Its size is negative.
    #[error("size {size} of {digest} is negative")]
    Size {
        /// The blob's.
        digest: Digest,
        /// As the document has it.
        size: i64,
    },
    /// The embedded data is no base64.
    #[error("embedded data of {digest} is not base64")]
    DataEncoding {
        /// The blob's.
        digest: Digest,
        /// What is wrong with it.
        source: base64::DecodeError,
    },
    /// The embedded data is other data.
    #[error("embedded data of {digest} is {bytes} bytes with another digest or size")]
    DataMismatch {
        /// The blob's.
        digest: Digest,
        /// Bytes embedded.
        bytes: usize,
    },
    /// A descriptor without a media type means nothing.
    #[error("{digest} has no media type")]
    MediaType {
        /// The blob's.
        digest: Digest,
    },
}

/// Parses the digest of a blob or manifest.
///
/// # Errors
/// [`DescriptorError::Algorithm`] for any algorithm but SHA-256, [`DescriptorError::Digest`] for what is no
/// digest.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, DescriptorError> {
    let algorithm = text.split_once(':').map(|(algorithm, _)| algorithm);
    let known = algorithm == Some(Algorithm::Sha256.name());
    if !known
        && algorithm.is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+._-".contains(&b))
        })
    {
        return Err(DescriptorError::Algorithm {
            digest: text.to_owned(),
        });
    }
    text.parse().map_err(|source| DescriptorError::Digest {
        digest: text.to_owned(),
        source,
    })
}

impl Descriptor {
    /// A descriptor with nothing but what every one has.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of these bytes.
    #[must_use]
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        // usize is at most 64 bits on every target that Rust has.
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self::new(media_type, Digest::sha256(bytes), size)
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn with_annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// The same for a platform.
    #[must_use]
    pub fn with_platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// An annotation's value.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether these are the bytes that it describes.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8]) -> bool {
        u64::try_from(bytes.len()) == Ok(self.size) && self.digest.verifies(bytes)
    }

    /// As JSON, for an edit of a document that holds it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_value(WireDescriptor::from(self)).unwrap_or_default()
    }
}

impl TryFrom<WireDescriptor> for Descriptor {
    type Error = DescriptorError;

    fn try_from(wire: WireDescriptor) -> Result<Self, DescriptorError> {
        let digest = parse_digest(&wire.digest)?;
        let size = u64::try_from(wire.size).map_err(|_| DescriptorError::Size {
            digest,
            size: wire.size,
        })?;
        if wire.media_type.is_empty() {
            return Err(DescriptorError::MediaType { digest });
        }
        let data = match wire.data {
            None => None,
            Some(text) => {
                let data = BASE64
                    .decode(text)
                    .map_err(|source| DescriptorError::DataEncoding { digest, source })?;
                if u64::try_from(data.len()) != Ok(size) || !digest.verifies(&data) {
                    let bytes = data.len();
                    return Err(DescriptorError::DataMismatch { digest, bytes });
                }
                Some(data)
            }
        };
        Ok(Self {
            media_type: wire.media_type,
            digest,
            size,
            urls: wire.urls.unwrap_or_default(),
            annotations: wire.annotations.unwrap_or_default(),
            data,
            platform: wire.platform.map(Platform::from),
            artifact_type: wire.artifact_type,
        })
    }
}

impl From<&Descriptor> for WireDescriptor {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            // A blob of 8 EiB does not exist; JSON readers in Go hold sizes in an int64.
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            urls: nonempty(&descriptor.urls),
            annotations: nonempty(&descriptor.annotations),
            data: descriptor.data.as_ref().map(|data| BASE64.encode(data)),
            platform: descriptor.platform.as_ref().map(Into::into),
            artifact_type: descriptor.artifact_type.clone(),
        }
    }
}
