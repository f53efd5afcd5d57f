//! What converted images say of how they came about, so that the same need not be done twice.

use std::collections::BTreeMap;

use draught_digest::Digest;

use super::error::ConvertError;
use super::options::{ConvertOptions, Publish};
use crate::cache::WRITER_VERSION;
use crate::pack::Output;

/// Of a manifest or index: the digest of what it was made from, a space, and the digest of how.
const MADE: &str = "dev.draught.convert";
/// Of a nydus image: the manifest that it was made from, as deployed converters write it.
///
/// Origin: `containerd/nydus-snapshotter: pkg/converter/constant.go`.
const NYDUS_SOURCE_DIGEST: &str = "containerd.io/snapshot/nydus-source-digest";

/// How images are made: the same options give the same text.
#[derive(Debug, Clone)]
pub(super) struct How {
    digest: Digest,
    is_nydus: bool,
}

impl How {
    pub(super) fn of(options: &ConvertOptions, dictionaries: &[Digest]) -> Self {
        let mut text = format!("writer {WRITER_VERSION}\n{}", options.output.key());
        for dictionary in dictionaries {
            text.push_str(&format!("dictionary {dictionary}\n"));
        }
        for (key, value) in &options.annotations {
            text.push_str(&format!("annotation {key:?} {value:?}\n"));
        }
        if let Some(blobs) = &options.blobs {
            text.push_str(&format!("blobs {:?}\n", blobs.name));
        }
        if options.publish == Publish::Merged {
            text.push_str("merged\n");
        }
        Self {
            digest: Digest::sha256(text.as_bytes()),
            is_nydus: matches!(options.output, Output::Nydus(_)),
        }
    }

    /// Says in a document what it was made from, and how.
    pub(super) fn mark(&self, annotations: &mut BTreeMap<String, String>, source: &Digest) {
        annotations.insert(MADE.to_owned(), self.made(source));
    }

    /// The same in a manifest of an image, for other converters too.
    pub(super) fn mark_image(&self, annotations: &mut BTreeMap<String, String>, source: &Digest) {
        self.mark(annotations, source);
        if self.is_nydus {
            annotations.insert(NYDUS_SOURCE_DIGEST.to_owned(), source.to_string());
        }
    }

    /// Whether a document says that it was made from this, like this.
    pub(super) fn is_made(&self, annotations: &BTreeMap<String, String>, source: &Digest) -> bool {
        annotations
            .get(MADE)
            .is_some_and(|made| *made == self.made(source))
    }

    fn made(&self, source: &Digest) -> String {
        format!("{source} {}", self.digest)
    }
}

/// What a source says of itself that is not true of what it becomes.
pub(super) fn forget(annotations: &mut BTreeMap<String, String>) {
    annotations.remove(MADE);
    annotations.remove(NYDUS_SOURCE_DIGEST);
}

/// Annotations that say what readers rely on can't be set.
pub(super) fn check(options: &ConvertOptions) -> Result<(), ConvertError> {
    let ours = |key: &&String| {
        key.starts_with("dev.draught.") || key.starts_with("containerd.io/snapshot/")
    };
    match options.annotations.keys().find(ours) {
        Some(key) => Err(ConvertError::Annotation { key: key.clone() }),
        None => Ok(()),
    }
}
