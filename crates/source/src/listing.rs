//! Images that an index lists: what an OCI layout is, as a directory or in a file.

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Limits, Selector, annotation, media_type};
use serde::Deserialize;

use crate::error::SourceError;
use crate::local::LocalBlob;

/// What marks a layout.
pub(crate) const MARKER_FILE: &str = "oci-layout";
/// What lists its images.
pub(crate) const INDEX_FILE: &str = "index.json";
/// The content of the marker.
pub(crate) const MARKER: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// The only version there is.
const VERSION: &str = "1.0.0";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMarker {
    image_layout_version: String,
}

/// Checks a layout's marker, or says why it is none that we know.
pub(crate) fn check_marker(bytes: &[u8]) -> Result<(), String> {
    let marker: WireMarker = serde_json::from_slice(bytes)
        .map_err(|error| format!("its file {MARKER_FILE} is malformed: {error}"))?;
    let version = marker.image_layout_version;
    if version == VERSION {
        return Ok(());
    }
    Err(format!(
        "its version is {version:?}, only {VERSION} is known"
    ))
}

/// Reads what lists the images of the layout `label`.
pub(crate) fn parse_index(label: &str, bytes: Vec<u8>) -> Result<Document<Index>, SourceError> {
    Document::parse(bytes, &Limits::default()).map_err(|source| SourceError::Document {
        what: format!("{label}, {INDEX_FILE}"),
        source: Box::new(source),
    })
}

/// Lists a document: under a tag, which it takes from whatever has it, or because it has a subject.
/// `image_name` is the whole name that the tag is part of.
pub(crate) fn list(index: &mut Index, tag: Option<&str>, document: &Any, image_name: Option<&str>) {
    let mut entry = document.descriptor();
    if let Some(tag) = tag {
        entry = entry.with_annotation(annotation::REF_NAME, tag);
    }
    if let Some(name) = image_name {
        entry = entry.with_annotation(annotation::CONTAINERD_IMAGE_NAME, name);
    }
    if let Any::Manifest(manifest) = document {
        entry.artifact_type = manifest.artifact_type.clone();
    }
    index.manifests.retain(|image| match tag {
        Some(tag) => image.annotation(annotation::REF_NAME) != Some(tag),
        None => image.digest != entry.digest,
    });
    index.manifests.push(entry);
}

/// The images that an index lists, without what is about them.
pub(crate) fn images(index: &Index) -> impl Iterator<Item = &Descriptor> {
    index.images().filter(|image| image.artifact_type.is_none())
}

/// An index and blobs. All functions may block.
pub(crate) trait Listing {
    /// Its name for people.
    fn label(&self) -> String;

    /// What lists its images.
    fn index(&self) -> Result<Document<Index>, SourceError>;

    /// Where a blob is; [`Listing::no_such_blob`] if it isn't there.
    fn blob(&self, digest: &Digest) -> Result<LocalBlob, SourceError>;

    fn no_such_blob(&self, digest: &Digest) -> SourceError {
        SourceError::NoSuchBlob {
            what: self.label(),
            digest: *digest,
        }
    }

    fn no_such_image(&self, selector: &str) -> SourceError {
        let tags = self.tags().unwrap_or_default();
        SourceError::NoSuchImage {
            what: self.label(),
            selector: selector.to_owned(),
            available: tags.join(", "),
        }
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, SourceError> {
        match self.blob(digest) {
            Ok(_) => Ok(true),
            Err(SourceError::NoSuchBlob { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The image that is meant when none was named: the only one, under whatever tags.
    fn only(&self) -> Result<Selector, SourceError> {
        let index = self.index()?;
        let mut digests = images(&index).map(|image| image.digest);
        match digests.next() {
            Some(first) if digests.all(|other| other == first) => Ok(Selector::Digest(first)),
            _ => Err(self.no_such_image("(name one)")),
        }
    }

    /// A manifest or index, verified.
    fn manifest(&self, selector: &Selector) -> Result<Any, SourceError> {
        let index = self.index()?;
        let mut listed = index.manifests.iter();
        let (digest, listed) = match selector {
            Selector::Digest(digest) => (*digest, listed.find(|image| image.digest == *digest)),
            Selector::Tag(tag) => {
                let image = listed
                    .find(|image| image.annotation(annotation::REF_NAME) == Some(tag))
                    .ok_or_else(|| self.no_such_image(tag))?;
                (image.digest, Some(image))
            }
        };
        let bytes = self
            .blob(&digest)?
            .document(&digest, || format!("manifest {selector}"))?;
        if !digest.verifies(&bytes) {
            return Err(SourceError::Mismatch {
                digest,
                got: Digest::sha256(&bytes),
                bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            });
        }
        let media_type = listed
            .map(|listed| listed.media_type.as_str())
            .filter(|told| media_type::is_manifest(told) || media_type::is_index(told));
        Any::parse(bytes, media_type.unwrap_or_default(), &Limits::default()).map_err(|source| {
            SourceError::Document {
                what: format!("{}, manifest {selector}", self.label()),
                source: Box::new(source),
            }
        })
    }

    fn tags(&self) -> Result<Vec<String>, SourceError> {
        let index = self.index()?;
        let mut tags: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|image| image.annotation(annotation::REF_NAME))
            .map(str::to_owned)
            .collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// What is listed and refers to a manifest.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, SourceError> {
        let index = self.index()?;
        let mut found = Vec::new();
        for image in &index.manifests {
            let is_document = media_type::is_manifest(&image.media_type)
                || media_type::is_index(&image.media_type);
            if is_document {
                let document = self.manifest(&Selector::Digest(image.digest))?;
                if document
                    .subject()
                    .is_some_and(|found| found.digest == *subject)
                {
                    found.push(image.clone());
                }
            }
        }
        Ok(found)
    }
}
