//! Files of an archive, and what they hold.

use draught_digest::Digest;
use draught_oci::{Descriptor, Reference, annotation};
use serde::{Deserialize, Serialize};

/// What lists the images for readers that do not know OCI layouts.
pub(super) const LIST_FILE: &str = "manifest.json";

/// An image in that list.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

/// Where a blob is.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Whether two texts name the same image.
pub(super) fn is_named(name: &str, reference: &Reference) -> bool {
    name.parse::<Reference>().is_ok_and(|name| {
        name.name() == reference.name() && name.selector() == reference.selector()
    })
}

/// What an image is called in an index: whole if that is told, else its tag.
pub(super) fn name_of(image: &Descriptor) -> Option<&str> {
    image
        .annotation(annotation::CONTAINERD_IMAGE_NAME)
        .or_else(|| image.annotation(annotation::REF_NAME))
}
