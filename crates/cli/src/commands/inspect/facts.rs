//! What is known of an image, in the shape that `--format json` prints.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use draught_digest::Algorithm;
use draught_importer::{Details, Format, Opened, detect};
use draught_oci::{ImageConfig, Manifest};
use draught_source::Blobs;
use draught_tree::{Compression, Kind, NodeId, Tree};
use serde::Serialize;

use super::blobs::{self, BlobFacts};
use super::shared::SharedFacts;
use crate::open::{self, Image};

/// What a reference stands for.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// As it was given.
    #[serde(rename = "ref")]
    pub(crate) reference: String,
    /// Of the manifest or index.
    pub(crate) digest: String,
    pub(crate) media_type: String,
    /// The image, or those of an index.
    pub(crate) images: Vec<ImageFacts>,
}

/// One image.
#[derive(Debug, Serialize)]
pub(crate) struct ImageFacts {
    /// Of the manifest.
    pub(crate) digest: String,
    pub(crate) platform: String,
    /// The name of the format.
    pub(crate) format: String,
    /// Whether it can be mounted without being pulled first, or why not.
    pub(crate) lazy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why_not_lazy: Option<String>,
    /// All layers and the configuration, in bytes as they are stored.
    pub(crate) stored_bytes: u64,
    pub(crate) created: Option<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// In the order of the manifest.
    pub(crate) layers: Vec<LayerFacts>,
    /// What its metadata says, for images that can be read lazily.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<ContentFacts>,
}

/// One layer.
#[derive(Debug, Serialize)]
pub(crate) struct LayerFacts {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) bytes: u64,
    /// "data", "metadata" or "archive".
    pub(crate) role: &'static str,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What metadata says.
#[derive(Debug, Serialize)]
pub(crate) struct ContentFacts {
    pub(crate) names: u64,
    pub(crate) directories: u64,
    pub(crate) files: u64,
    pub(crate) symlinks: u64,
    /// Devices, pipes and sockets.
    pub(crate) specials: u64,
    /// Bytes of all files, each inode once.
    pub(crate) file_bytes: u64,
    pub(crate) chunks: u64,
    /// Bytes of all chunks: less than `file_bytes` where files share chunks.
    pub(crate) chunk_bytes: u64,
    pub(crate) extents: u64,
    pub(crate) chunk_bytes_max: u32,
    pub(crate) compressor: &'static str,
    pub(crate) digester: &'static str,
    pub(crate) metadata_bytes: u64,
    /// Files and directories to fetch first.
    pub(crate) prefetch: u64,
    /// In the order of the metadata.
    pub(crate) blobs: Vec<BlobFacts>,
    /// What other images have of it, in the order in which they were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) shared: Vec<SharedFacts>,
}

/// Reads what is to be known of an image, and of what it consists of if it can be read lazily.
pub(crate) async fn image(blobs: &Blobs, image: &Image) -> Result<(ImageFacts, Option<Opened>)> {
    let manifest = image.manifest.content();
    let digest = image.manifest.digest();
    let config = blobs
        .repository()
        .config(manifest)
        .await
        .with_context(|| format!("fetch the configuration of {digest}"))?;
    let format = detect(manifest);
    let mut facts = ImageFacts {
        platform: match &image.platform {
            Some(platform) => platform.to_string(),
            None => config.content().platform.to_string(),
        },
        digest: digest.to_string(),
        layers: layers(manifest, &format),
        ..of_config(manifest, config.content(), &format)
    };
    let mut opened = None;
    if let Format::Nydus { .. } | Format::Estargz { .. } = format {
        let read = open::import(blobs, manifest)
            .await
            .with_context(|| format!("read the metadata of {digest}"))?;
        facts.content = Some(content(&read, manifest));
        opened = Some(read);
    }
    Ok((facts, opened))
}

fn of_config(manifest: &Manifest, config: &ImageConfig, format: &Format) -> ImageFacts {
    let (lazy, why_not_lazy) = match format {
        Format::Nydus { .. } | Format::Estargz { .. } => (true, None),
        Format::Plain(plain) => (false, Some(plain.why_not_lazy())),
        Format::Unsupported { why } => (false, Some(why.clone())),
    };
    ImageFacts {
        digest: String::new(),
        platform: String::new(),
        format: format.name().to_owned(),
        lazy,
        why_not_lazy,
        stored_bytes: manifest
            .blobs()
            .map(|blob| blob.size)
            .fold(0, u64::saturating_add),
        created: config.created.clone(),
        entrypoint: config.run.entrypoint.clone(),
        cmd: config.run.cmd.clone(),
        env: config.run.env.clone(),
        user: config.run.user.clone(),
        working_dir: config.run.working_dir.clone(),
        labels: config.run.labels.clone(),
        annotations: manifest.annotations.clone(),
        layers: Vec::new(),
        content: None,
    }
}

fn layers(manifest: &Manifest, format: &Format) -> Vec<LayerFacts> {
    let role = |layer: &draught_oci::Descriptor| match format {
        Format::Nydus { bootstrap, .. } if bootstrap.digest == layer.digest => "metadata",
        Format::Nydus { blobs, .. } if blobs.iter().any(|blob| blob.digest == layer.digest) => {
            "data"
        }
        // Both in one, and an archive too: what is read lazily is the data.
        Format::Estargz { .. } => "data",
        _ => "archive",
    };
    let facts = manifest.layers.iter().map(|layer| LayerFacts {
        digest: layer.digest.to_string(),
        media_type: layer.media_type.clone(),
        bytes: layer.size,
        role: role(layer),
        annotations: layer.annotations.clone(),
    });
    facts.collect()
}

fn content(opened: &Opened, manifest: &Manifest) -> ContentFacts {
    let Opened {
        tree,
        prefetch,
        details,
    } = opened;
    let facts = match details {
        Details::Nydus(nydus) => ContentFacts {
            chunk_bytes_max: nydus.chunk_bytes,
            compressor: compressor(nydus.compression),
            digester: nydus.digester.name(),
            metadata_bytes: u64::try_from(nydus.bootstrap.len()).unwrap_or(u64::MAX),
            ..files(tree)
        },
        Details::Estargz(estargz) => ContentFacts {
            chunk_bytes_max: estargz.chunk_bytes_max,
            compressor: compressor(Compression::Gzip),
            digester: Algorithm::Sha256.name(),
            metadata_bytes: estargz.toc_stored_bytes,
            ..files(tree)
        },
    };
    let map = &tree.map;
    let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
    ContentFacts {
        chunks: count(map.chunks.len()),
        chunk_bytes: map.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum(),
        extents: count(map.extents.len()),
        prefetch: count(prefetch.len()),
        blobs: blobs::of(opened, manifest),
        ..facts
    }
}

/// How many regular files a tree has, and how many bytes are in them.
pub(crate) fn files_of(tree: &Tree) -> (u64, u64) {
    let facts = files(tree);
    (facts.files, facts.file_bytes)
}

/// Counts what the tree holds.
fn files(tree: &Tree) -> ContentFacts {
    let mut facts = ContentFacts {
        names: 0,
        directories: 0,
        files: 0,
        symlinks: 0,
        specials: 0,
        file_bytes: 0,
        chunks: 0,
        chunk_bytes: 0,
        extents: 0,
        chunk_bytes_max: 0,
        compressor: "",
        digester: "",
        metadata_bytes: 0,
        prefetch: 0,
        blobs: Vec::new(),
        shared: Vec::new(),
    };
    let mut seen: Vec<bool> = vec![false; tree.arena_len()];
    for (_, node) in tree.walk() {
        facts.names += 1;
        if let Some(counted) = seen.get_mut(NodeId::index(node)).filter(|seen| !**seen) {
            *counted = true;
            match &tree.node(node).kind {
                Kind::Directory(_) => facts.directories += 1,
                Kind::File { bytes, .. } => {
                    facts.files += 1;
                    facts.file_bytes = facts.file_bytes.saturating_add(*bytes);
                }
                Kind::Symlink(_) => facts.symlinks += 1,
                _ => facts.specials += 1,
            }
        }
    }
    facts
}

/// As the command line names it.
fn compressor(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4Block => "lz4",
        Compression::Zstd => "zstd",
        Compression::Gzip => "gzip",
    }
}
