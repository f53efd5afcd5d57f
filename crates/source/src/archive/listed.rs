//! Images of an archive that is an OCI layout.

use draught_digest::Digest;
use draught_oci::{Document, Index, Reference};

use super::image::{Image, Opening, label};
use super::names::{is_named, name_of};
use crate::error::SourceError;
use crate::listing::{self, INDEX_FILE, MARKER_FILE};

/// The image that was asked for.
pub(super) fn image(
    opening: &Opening<'_>,
    reference: Option<&Reference>,
) -> Result<Image, SourceError> {
    // Docker 25 wrote it without exception, other tools that only resemble it may not.
    if opening.files.find(MARKER_FILE).is_some() {
        let marker = opening.read(MARKER_FILE)?;
        listing::check_marker(&marker).map_err(|reason| opening.wrong(reason))?;
    }
    let bytes = opening.read(INDEX_FILE)?;
    let listed = listing::parse_index(&label(opening.path), bytes)?;
    let chosen = choose(opening, &listed, reference)?;
    let others: Vec<Digest> = listing::images(&listed)
        .map(|image| image.digest)
        .filter(|digest| *digest != chosen)
        .collect();
    let mut index: Index = listed.content().clone();
    index
        .manifests
        .retain(|image| !others.contains(&image.digest));
    Ok(Image {
        path: opening.path.to_owned(),
        index: Document::write(index),
        blobs: opening.files.blobs(),
    })
}

/// The one image that has the name, or the only one.
fn choose(
    opening: &Opening<'_>,
    index: &Index,
    reference: Option<&Reference>,
) -> Result<Digest, SourceError> {
    let mut found = listing::images(index)
        .filter(|image| match reference {
            None => true,
            Some(reference) => match reference.digest() {
                Some(digest) => image.digest == digest,
                None => name_of(image).is_some_and(|name| is_named(name, reference)),
            },
        })
        .map(|image| image.digest);
    match found.next() {
        // Under two names it is still one image.
        Some(first) if reference.is_some() || found.all(|other| other == first) => Ok(first),
        _ => {
            let names: Vec<String> = listing::images(index)
                .filter_map(name_of)
                .map(str::to_owned)
                .collect();
            Err(opening.no_such(reference, &names))
        }
    }
}
