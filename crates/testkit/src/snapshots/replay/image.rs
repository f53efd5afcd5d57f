//! Images by what a snapshotter hears of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_digest::Digest;
use serde_json::Value;

/// The annotation that names a layer's table of contents.
const TOC: &str = "containerd.io/snapshot/stargz/toc.digest";

/// An image as clients speak of it to a snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The reference by which it is pulled, with its tag.
    pub reference: String,
    /// The digest of its manifest.
    pub manifest: String,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The digest of the blob.
    pub digest: String,
    /// The digest of the archive in it.
    pub diff_id: String,
    /// What names this layer and those below it.
    pub chain_id: String,
    /// The digest of its table of contents, if it has one.
    pub toc: Option<String>,
    /// The blob, if it is to be unpacked.
    pub blob: Option<PathBuf>,
}

impl Image {
    /// The only image of an OCI layout, which `reference` names where it is pulled from.
    ///
    /// # Errors
    ///
    /// If it is no layout with an image.
    pub fn of_layout(reference: &str, layout: &Path) -> Result<Self> {
        let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
        let index: Value = json(&fs_err::read(layout.join("index.json"))?)?;
        let manifest = text(&index["manifests"][0]["digest"])?;
        let bytes = fs_err::read(blob(&manifest))?;
        let config = text(&json(&bytes)?["config"]["digest"])?;
        let config = fs_err::read(blob(&config))?;
        let mut image = Self::of_documents(reference, &bytes, &config)?;
        for layer in &mut image.layers {
            layer.blob = Some(blob(&layer.digest));
        }
        Ok(image)
    }

    /// The image that this manifest and this configuration describe; nothing of it is unpacked.
    ///
    /// # Errors
    ///
    /// If they are not those of one image.
    pub fn of_documents(reference: &str, manifest: &[u8], config: &[u8]) -> Result<Self> {
        let digest = Digest::sha256(manifest).to_string();
        let (manifest, config) = (json(manifest)?, json(config)?);
        let descriptors = manifest["layers"].as_array().context("no layers")?;
        let diff_ids = config["rootfs"]["diff_ids"].as_array();
        let diff_ids = diff_ids.context("no diff ids")?;
        let mut chain_id = String::new();
        let layer = |(descriptor, diff_id): (&Value, &Value)| -> Result<ImageLayer> {
            let diff_id = text(diff_id)?;
            chain_id = if chain_id.is_empty() {
                diff_id.clone()
            } else {
                Digest::sha256(format!("{chain_id} {diff_id}").as_bytes()).to_string()
            };
            Ok(ImageLayer {
                digest: text(&descriptor["digest"])?,
                diff_id,
                chain_id: chain_id.clone(),
                toc: descriptor["annotations"][TOC].as_str().map(str::to_owned),
                blob: None,
            })
        };
        let layers = descriptors.iter().zip(diff_ids).map(layer);
        Ok(Self {
            reference: reference.to_owned(),
            manifest: digest,
            layers: layers.collect::<Result<_>>()?,
        })
    }
}

impl ImageLayer {
    /// The layer's archive, however its blob is compressed; nothing if there is no blob.
    ///
    /// # Errors
    ///
    /// If the blob can't be read.
    pub fn archive(&self) -> Result<Option<Box<dyn Read>>> {
        let Some(blob) = &self.blob else {
            return Ok(None);
        };
        let mut magic = Vec::new();
        fs_err::File::open(blob)?.take(4).read_to_end(&mut magic)?;
        let file = fs_err::File::open(blob)?;
        Ok(Some(match magic[..] {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
            _ => Box::new(file),
        }))
    }
}

fn json(bytes: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(bytes)?)
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().map(str::to_owned);
    text.context("a digest is missing")
}
