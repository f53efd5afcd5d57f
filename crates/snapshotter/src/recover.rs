//! Snapshots that containerd knows and we don't (any more): a state directory that was lost.
//!
//! Lazy layers are named after their chain, and containerd has the manifests and configurations of its images: from
//! these it follows which image's layers a chain is, and they are served again as if they had just been pulled. What
//! clients had unpacked, and what containers had written, is lost.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use draught_containerd::content::ReadContentRequest;
use draught_containerd::content::content_client::ContentClient;
use draught_containerd::images::ListImagesRequest;
use draught_containerd::images::images_client::ImagesClient;
use draught_containerd::namespaces::ListNamespacesRequest;
use draught_containerd::namespaces::namespaces_client::NamespacesClient;
use draught_containerd::tonic::transport::Channel;
use draught_containerd::{connect, in_namespace};
use draught_digest::Digest;
use draught_oci::{Any, Document, ImageConfig, Limits, Manifest};
use parking_lot::Mutex;

use crate::labels::Wanted;

/// How long containerd may take for all answers together: it waits for ours meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a name that was not found is looked for again.
const AGAIN: Duration = Duration::from_secs(30);
/// Names of which that is remembered.
const MISSED_MAX: usize = 1024;
/// Bytes of a manifest, index or configuration.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Recovery {
    containerd: PathBuf,
    missed: Mutex<Vec<(String, Instant)>>,
}

/// A layer on its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) wanted: Wanted,
    /// The chain below; empty: none.
    pub(crate) parent: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Recovery {
    /// From the containerd on this socket.
    pub(crate) fn new(containerd: PathBuf) -> Self {
        Self {
            containerd,
            missed: Mutex::default(),
        }
    }

    /// The layers of the chain of that name, the lowest first; none if no image of containerd has it.
    pub(crate) async fn find(&self, chain: &str) -> Vec<Found> {
        if chain.parse::<Digest>().is_err() || self.has_missed(chain) {
            return Vec::new();
        }
        let found = tokio::time::timeout(PATIENCE, search(&self.containerd, chain)).await;
        match found {
            Ok(Ok(found)) if !found.is_empty() => found,
            Ok(Ok(_)) => {
                self.miss(chain);
                Vec::new()
            }
            Ok(Err(error)) => {
                tracing::debug!(
                    error = &*error as &dyn std::error::Error,
                    "containerd can't be asked"
                );
                self.miss(chain);
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(chain, "containerd did not answer in time");
                self.miss(chain);
                Vec::new()
            }
        }
    }

    fn has_missed(&self, chain: &str) -> bool {
        let mut missed = self.missed.lock();
        missed.retain(|(_, when)| when.elapsed() < AGAIN);
        missed.iter().any(|(name, _)| name == chain)
    }

    fn miss(&self, chain: &str) {
        let mut missed = self.missed.lock();
        if missed.len() >= MISSED_MAX {
            missed.clear();
        }
        missed.push((chain.to_owned(), Instant::now()));
    }
}

async fn search(containerd: &Path, chain: &str) -> Result<Vec<Found>, Failure> {
    let channel = connect(containerd).await?;
    let mut namespaces = NamespacesClient::new(channel.clone());
    let list = ListNamespacesRequest::default();
    let namespaces = namespaces.list(list).await?.into_inner().namespaces;
    for namespace in namespaces {
        let namespace = namespace.name;
        let mut images = ImagesClient::new(channel.clone());
        let list = in_namespace(&namespace, ListImagesRequest::default());
        for image in images.list(list).await?.into_inner().images {
            let Some(target) = image.target else { continue };
            let Ok(digest) = target.digest.parse() else {
                continue;
            };
            // An image of which something is missing is somebody else's.
            let place = Place {
                channel: &channel,
                namespace: &namespace,
            };
            let manifests = place.manifests(digest, &target.media_type).await;
            for manifest in manifests.unwrap_or_default() {
                let Ok(layers) = place.layers(&manifest).await else {
                    continue;
                };
                let found = on_chain(&image.name, manifest.digest(), &layers, chain);
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
    }
    Ok(Vec::new())
}

/// Where documents are.
struct Place<'a> {
    channel: &'a Channel,
    namespace: &'a str,
}

impl Place<'_> {
    /// The manifests of images that a digest leads to and that are there.
    async fn manifests(
        &self,
        digest: Digest,
        media_type: &str,
    ) -> Result<Vec<Document<Manifest>>, Failure> {
        let limits = Limits::default();
        let bytes = self.read(&digest).await?;
        let index = match Any::parse(bytes, media_type, &limits)? {
            Any::Manifest(manifest) => return Ok(vec![manifest]),
            Any::Index(index) => index,
        };
        let mut manifests = Vec::new();
        for descriptor in index.content().images() {
            if let Ok(bytes) = self.read(&descriptor.digest).await {
                manifests.extend(Document::parse(bytes, &limits));
            }
        }
        Ok(manifests)
    }

    /// The layers of an image: blob and diffID of each.
    async fn layers(
        &self,
        manifest: &Document<Manifest>,
    ) -> Result<Vec<(Digest, Digest)>, Failure> {
        let manifest = manifest.content();
        let config = self.read(&manifest.config.digest).await?;
        let config = Document::<ImageConfig>::parse(config, &Limits::default())?;
        let layers = manifest.layers.iter().map(|layer| layer.digest);
        Ok(layers.zip(config.content().diff_ids.clone()).collect())
    }

    async fn read(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        let mut content = ContentClient::new(self.channel.clone());
        let request = ReadContentRequest {
            digest: digest.to_string(),
            ..ReadContentRequest::default()
        };
        let request = in_namespace(self.namespace, request);
        let mut stream = content.read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            bytes.extend_from_slice(&message.data);
            if bytes.len() > DOCUMENT_BYTES_MAX {
                return Err("a document is too large".into());
            }
        }
        if Digest::sha256(&bytes) != *digest {
            return Err("a document has another digest".into());
        }
        Ok(bytes)
    }
}

/// The layers of an image up to the one that makes this chain.
fn on_chain(
    reference: &str,
    manifest: Digest,
    layers: &[(Digest, Digest)],
    chain: &str,
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = String::new();
    for (blob, diff_id) in layers {
        let next = if at.is_empty() {
            diff_id.to_string()
        } else {
            Digest::sha256(format!("{at} {diff_id}").as_bytes()).to_string()
        };
        found.push(Found {
            wanted: Wanted {
                target: next.clone(),
                reference: reference.to_owned(),
                layer: *blob,
                manifest: Some(manifest),
            },
            parent: std::mem::replace(&mut at, next),
        });
        if at == chain {
            return found;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_those_of_the_image_specification() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::sha256(text));
        let layers = [(c, a), (b, b), (a, c)];
        let second = Digest::sha256(format!("{a} {b}").as_bytes()).to_string();
        let manifest = Digest::sha256(b"manifest");
        let found = on_chain("r.lan/x:1", manifest, &layers, &second);
        let each: Vec<_> = found
            .iter()
            .map(|it| (it.wanted.layer, it.wanted.target.clone(), it.parent.clone()))
            .collect();
        assert_eq!(
            each,
            [
                (c, a.to_string(), String::new()),
                (b, second.clone(), a.to_string())
            ]
        );
        assert!(on_chain("r.lan/x:1", manifest, &layers, &b.to_string()).is_empty());
    }
}
