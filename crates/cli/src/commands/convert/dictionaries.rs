//! Where chunks are that are not to be stored again.

use std::str::FromStr;

use anyhow::{Context as _, Result};
use draught_node::{Client, DfImage, Layout};
use draught_oci::{Location, LocationError, Reference, Selector};

use crate::settings::Settings;

/// What `--chunk-dict` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChunkDict {
    /// All images that this node's store has.
    Store,
    /// An image.
    Image(Location),
}

impl FromStr for ChunkDict {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "store" => Ok(Self::Store),
            text => text.parse().map(Self::Image),
        }
    }
}

/// The images that are named.
pub(crate) fn named(all: &[ChunkDict]) -> Vec<Location> {
    let images = all.iter().filter_map(|one| match one {
        ChunkDict::Image(location) => Some(location.clone()),
        ChunkDict::Store => None,
    });
    images.collect()
}

/// The images that the store has, those that were used last first, if it is named.
pub(crate) fn in_store(all: &[ChunkDict], settings: &Settings) -> Result<Vec<Location>> {
    if !all.contains(&ChunkDict::Store) {
        return Ok(Vec::new());
    }
    let client = Client::new(Layout::new(&settings.root));
    let report = client
        .df()
        .context("ask the daemon what its store has (--chunk-dict store)")?;
    let mut images = report.images;
    images.sort_by_key(|image| (std::cmp::Reverse(image.last_used), image.digest.clone()));
    Ok(images.iter().filter_map(exactly).collect())
}

/// That very image, whatever its tag stands for now.
fn exactly(image: &DfImage) -> Option<Location> {
    let digest = Selector::Digest(image.digest.parse().ok()?);
    let location = image.references.first()?.parse().ok()?;
    Some(match location {
        Location::Registry(reference) => {
            let (host, repository) = (reference.host(), reference.repository());
            Location::Registry(Reference::new(host, repository, &digest).ok()?)
        }
        Location::OciLayout { dir, .. } => Location::OciLayout {
            dir,
            selector: Some(digest),
        },
        other => other,
    })
}
