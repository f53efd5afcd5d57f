//! What images have in common.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result, bail};
use draught_digest::{Algorithm, Digest};
use draught_importer::Opened;
use draught_oci::{Location, Platform};
use draught_source::Client;
use serde::Serialize;

use super::facts::ContentFacts;
use crate::open;

/// What another image has of an image.
#[derive(Debug, Serialize)]
pub(crate) struct SharedFacts {
    /// The other image, as it was given.
    pub(crate) with: String,
    /// Of its manifest.
    pub(crate) digest: String,
    /// How its chunks are digested. If that is another way than the image's, nothing can be compared: then
    /// `comparable` is false, and nothing is shared.
    pub(crate) digester: &'static str,
    pub(crate) comparable: bool,
    /// Chunks of the image that the other one has too: the same content, cut in the same places.
    pub(crate) chunks: u64,
    /// Decoded bytes of these.
    pub(crate) chunk_bytes: u64,
}

/// The chunks of another image.
struct Chunks {
    manifest: Digest,
    /// What it says they are digested with, if it has any.
    digester: Option<Algorithm>,
    digests: HashSet<Digest>,
}

/// Other images to compare with.
pub(super) struct Others<'a> {
    client: &'a Client,
    locations: &'a [Location],
    /// Those that were read, by their place in `locations` and the platform that was asked for.
    read: BTreeMap<(usize, String), Chunks>,
}

impl<'a> Others<'a> {
    pub(super) fn new(client: &'a Client, locations: &'a [Location]) -> Self {
        Self {
            client,
            locations,
            read: BTreeMap::new(),
        }
    }

    /// Notes what each of the others has of an image for that platform.
    pub(super) async fn compare(
        &mut self,
        platform: &str,
        opened: &Opened,
        facts: &mut ContentFacts,
    ) -> Result<()> {
        for (at, location) in self.locations.iter().enumerate() {
            let key = (at, platform.to_owned());
            if !self.read.contains_key(&key) {
                let read = read(self.client, location, platform).await?;
                self.read.insert(key.clone(), read);
            }
            if let Some(other) = self.read.get(&key) {
                facts
                    .shared
                    .push(shared(location, opened, facts.digester, other));
            }
        }
        Ok(())
    }
}

/// Reads which chunks an image has: of an index that for the platform, or the only one.
async fn read(client: &Client, location: &Location, platform: &str) -> Result<Chunks> {
    let named = open::named(client, location, None).await?;
    let wanted: Option<Platform> = platform.parse().ok();
    let mut images = named.images.into_iter().collect::<Result<Vec<_>>>()?;
    let at = match images.len() {
        1 => Some(0),
        _ => (0..images.len())
            .filter_map(|at| {
                let platform = images.get(at)?.platform.as_ref()?;
                Some((wanted.as_ref()?.rank(platform)?, at))
            })
            .min()
            .map(|(_, at)| at),
    };
    let Some(at) = at else {
        bail!("compare with {location}: it has no image for {platform}");
    };
    let image = images.swap_remove(at);
    let opened = open::import(&named.blobs, image.manifest.content()).await;
    let opened = opened.with_context(|| format!("compare with {location}"))?;
    let chunks = &opened.tree.map.chunks;
    Ok(Chunks {
        manifest: image.manifest.digest(),
        digester: chunks.first().map(|chunk| chunk.digest.algorithm()),
        digests: chunks.iter().map(|chunk| chunk.digest).collect(),
    })
}

fn shared(
    location: &Location,
    opened: &Opened,
    digester: &'static str,
    other: &Chunks,
) -> SharedFacts {
    let theirs = other.digester.map_or(digester, Algorithm::name);
    let mut facts = SharedFacts {
        with: location.to_string(),
        digest: other.manifest.to_string(),
        digester: theirs,
        comparable: theirs == digester,
        chunks: 0,
        chunk_bytes: 0,
    };
    for chunk in &opened.tree.map.chunks {
        if other.digests.contains(&chunk.digest) {
            facts.chunks += 1;
            facts.chunk_bytes = facts.chunk_bytes.saturating_add(chunk.bytes.into());
        }
    }
    facts
}
