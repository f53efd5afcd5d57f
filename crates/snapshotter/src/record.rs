//! What is known of a snapshot, as it is kept.

use std::collections::BTreeMap;
use std::time::SystemTime;

use draught_digest::Digest;
use serde::{Deserialize, Serialize};

/// A snapshot's labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// To be read only.
    View,
    /// To be written into.
    Active,
    /// Never to change any more.
    Committed,
}

/// Digests as texts.
mod digest_text {
    use draught_digest::Digest;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What of a lazily read image a committed snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// One layer, which is put on those below.
    Layer {
        /// Digest of its table of contents.
        #[serde(with = "digest_text")]
        toc: Digest,
        /// Stored bytes.
        bytes: u64,
    },
    /// The whole image: the layers below hold data only.
    Whole,
    /// Data of the image that a layer above stands for: no file of it shows here.
    Data,
}

/// A layer that is read lazily.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lazy {
    /// The image that it was pulled with.
    pub(crate) reference: String,
    /// Digest of the image's manifest.
    #[serde(with = "digest_text")]
    pub(crate) manifest: Digest,
    /// Digest of its blob.
    #[serde(with = "digest_text")]
    pub(crate) blob: Digest,
    /// Under which digest the store keeps the lazy layers up to this one, as one filesystem.
    #[serde(with = "digest_text")]
    pub(crate) image: Digest,
    /// What it is.
    pub(crate) role: Role,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Names its directory; given once, never again.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// The name of the snapshot below; empty: none.
    pub(crate) parent: String,
    pub(crate) labels: Labels,
    /// In nanoseconds since 1970.
    pub(crate) created: u64,
    /// Likewise.
    pub(crate) updated: u64,
    /// What it takes on disk by itself, once it is committed: bytes.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Likewise: inodes.
    #[serde(default)]
    pub(crate) inodes: u64,
    /// What is read lazily; none: its files are in its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lazy: Option<Lazy>,
    /// Why it is not lazy, where a client would have let it be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) eager: Option<Eager>,
}

/// A layer that a client pulled though it would have let it be lazy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Eager {
    /// The image that it was pulled with.
    pub(crate) reference: String,
    /// Digest of its blob, if the client said.
    pub(crate) blob: Option<String>,
    /// Why it is not lazy.
    pub(crate) why: String,
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
