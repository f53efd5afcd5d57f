//! From an image's name to the blobs that it lacks.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Index, Limits, Platform, media_type};

use super::blobs::Sources;
use super::containerd::{Containerd, Labels};
use super::labels;

/// Documents of one image that are looked at: an index for every platform there is, with attestations, has a
/// hundred.
const DOCUMENTS_MAX: usize = 1024;

/// Which images of an index are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Those whose manifest containerd has; this machine's, if it has none.
    Present,
    /// The best for each of these platforms.
    Platforms(Vec<Platform>),
    /// All, with all that is about them.
    All,
}

/// What an image consists of.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// What is to be fetched.
    pub(crate) missing: Vec<Descriptor>,
    /// What is there.
    pub(crate) present: Vec<Descriptor>,
    /// What nobody gives away.
    pub(crate) left_out: Vec<Descriptor>,
    /// Documents that had to be fetched to know the rest: they are there now.
    pub(crate) fetched: Vec<(Descriptor, String)>,
}

/// Follows the image's documents, brings those that are missing, and has each keep its children: from then on
/// what is written is kept.
pub(crate) async fn follow(
    containerd: &Containerd,
    sources: &Sources,
    target: &Descriptor,
    choice: &Choice,
) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut queue = VecDeque::from([target.clone()]);
    let mut seen = BTreeSet::<Digest>::new();
    while let Some(descriptor) = queue.pop_front() {
        if !seen.insert(descriptor.digest) {
            continue;
        }
        if seen.len() > DOCUMENTS_MAX {
            bail!("follow the image: it has more than {DOCUMENTS_MAX} documents");
        }
        let (bytes, have) = document(containerd, sources, &descriptor, &mut tree).await?;
        let any = Any::parse(bytes.to_vec(), &descriptor.media_type, &Limits::default())
            .with_context(|| format!("read {}", descriptor.digest))?;
        let (kept, children) = match &any {
            Any::Manifest(manifest) => {
                let blobs: Vec<Descriptor> = manifest.content().blobs().cloned().collect();
                (blobs, Vec::new())
            }
            Any::Index(index) => {
                let chosen = choose(containerd, index.content(), choice).await?;
                (index.content().manifests.clone(), chosen)
            }
        };
        let labels = labels::references(&have, &kept);
        containerd.set_labels(&descriptor.digest, labels).await?;
        // Only now: what was nobody's may have been collected until it was somebody's.
        if let Any::Manifest(_) = &any {
            for blob in kept.iter().filter(|blob| seen.insert(blob.digest)) {
                sort(containerd, blob, &mut tree).await?;
            }
        }
        queue.extend(children);
    }
    Ok(tree)
}

/// A document and its labels; one that is missing is brought.
async fn document(
    containerd: &Containerd,
    sources: &Sources,
    descriptor: &Descriptor,
    tree: &mut Tree,
) -> Result<(Bytes, Labels)> {
    if let Some(labels) = containerd.labels(&descriptor.digest).await? {
        sources.also(&labels);
        tree.present.push(descriptor.clone());
        return Ok((containerd.document(descriptor).await?, labels));
    }
    let (bytes, from) = sources.document(containerd, descriptor).await?;
    tree.fetched.push((descriptor.clone(), from));
    let labels = containerd.labels(&descriptor.digest).await?;
    Ok((bytes, labels.unwrap_or_default()))
}

/// Finds out whether a blob is there.
async fn sort(containerd: &Containerd, blob: &Descriptor, tree: &mut Tree) -> Result<()> {
    let list = if containerd.labels(&blob.digest).await?.is_some() {
        &mut tree.present
    } else if is_foreign(blob) {
        &mut tree.left_out
    } else {
        &mut tree.missing
    };
    list.push(blob.clone());
    Ok(())
}

/// Whether it is a layer that registries are not to have: whoever pushes or exports leaves it out.
fn is_foreign(blob: &Descriptor) -> bool {
    let essence = media_type::essence(&blob.media_type);
    essence == media_type::DOCKER_LAYER_FOREIGN || essence.contains(".layer.nondistributable.")
}

async fn choose(
    containerd: &Containerd,
    index: &Index,
    choice: &Choice,
) -> Result<Vec<Descriptor>> {
    match choice {
        Choice::All => Ok(index.manifests.clone()),
        Choice::Platforms(platforms) => platforms
            .iter()
            .map(|platform| {
                let chosen = index.select(platform).cloned();
                chosen.with_context(|| format!("find an image for {platform} in the index"))
            })
            .collect(),
        Choice::Present => {
            let mut present = Vec::new();
            for manifest in &index.manifests {
                if containerd.labels(&manifest.digest).await?.is_some() {
                    present.push(manifest.clone());
                }
            }
            if present.is_empty() {
                present.extend(index.select(&Platform::host()).cloned());
            }
            if present.is_empty() {
                bail!(
                    "find an image for {} in the index: name one with --platform",
                    Platform::host()
                );
            }
            Ok(present)
        }
    }
}
