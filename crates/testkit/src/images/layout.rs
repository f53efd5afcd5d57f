//! OCI layouts, written by hand.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use draught_digest::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Tar,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Packing {
    fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer to be written.
pub struct Layer<'a> {
    /// The tar archive.
    pub archive: Box<dyn Read + 'a>,
    /// How to compress it.
    pub packing: Packing,
}

impl std::fmt::Debug for Layer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("packing", &self.packing)
            .finish_non_exhaustive()
    }
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    to: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: io::Write> Hashing<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            hasher: Hasher::new(Algorithm::Sha256),
            bytes: 0,
        }
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes an OCI layout with one image, tagged `latest`, made of these layers.
///
/// # Errors
///
/// If a layer can't be read or the layout can't be written.
pub fn write_layout(dir: &Path, layers: Vec<Layer<'_>>) -> anyhow::Result<()> {
    write_layout_running(dir, layers, &["/bin/sh"])
}

/// As [`write_layout`], of an image that runs `command` where nothing else is asked for.
///
/// # Errors
///
/// If a layer can't be read or the layout can't be written.
pub fn write_layout_running(
    dir: &Path,
    layers: Vec<Layer<'_>>,
    command: &[&str],
) -> anyhow::Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs_err::create_dir_all(&blobs)?;
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let (descriptor, diff_id) = write_layer(&blobs, layer)?;
        descriptors.push(descriptor);
        diff_ids.push(diff_id);
    }
    write_documents(dir, &blobs, &descriptors, &diff_ids, command)
}

/// A layer that is compressed already.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// The blob, a tar archive in gzip.
    pub blob: Vec<u8>,
    /// The digest of the archive.
    pub diff_id: Digest,
    /// Annotations of the descriptor.
    pub annotations: Vec<(&'static str, String)>,
}

/// As [`write_layout`], of layers that are compressed already.
///
/// # Errors
///
/// If the layout can't be written.
pub fn write_stored_layout(dir: &Path, layers: &[StoredLayer]) -> anyhow::Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs_err::create_dir_all(&blobs)?;
    let mut descriptors = Vec::new();
    for layer in layers {
        let digest = Digest::sha256(&layer.blob);
        fs_err::write(blobs.join(digest.hex()), &layer.blob)?;
        let annotations = layer.annotations.iter();
        let annotations: serde_json::Map<_, _> = annotations
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        descriptors.push(json!({
            "mediaType": Packing::Gzip.media_type(),
            "digest": digest.to_string(),
            "size": layer.blob.len(),
            "annotations": annotations,
        }));
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    write_documents(dir, &blobs, &descriptors, &diff_ids, &["/bin/sh"])
}

/// Writes what is in a layout besides its layers.
fn write_documents(
    dir: &Path,
    blobs: &Path,
    descriptors: &[Value],
    diff_ids: &[Digest],
    command: &[&str],
) -> anyhow::Result<()> {
    let diff_ids: Vec<_> = diff_ids.iter().map(ToString::to_string).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = write_json(blobs, "application/vnd.oci.image.config.v1+json", &config)?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": descriptors,
    });
    let mut manifest = write_json(blobs, manifest_type, &manifest)?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    fs_err::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    fs_err::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// The files of the layers of a layout's first image, lowest first, as they are stored.
///
/// # Panics
///
/// If it is no layout with an image in it.
#[must_use]
pub fn layer_files(layout: &Path) -> Vec<PathBuf> {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let read =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    let index = read(layout.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]));
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(blob).collect()
}

/// Compresses a layer into a blob: its descriptor, and the digest of the archive.
fn write_layer(blobs: &Path, mut layer: Layer<'_>) -> anyhow::Result<(Value, Digest)> {
    let path = blobs.join("unnamed");
    let mut blob = Hashing::new(io::BufWriter::new(fs_err::File::create(&path)?));
    let diff_id = match layer.packing {
        Packing::Tar => {
            let mut archive = Hashing::new(&mut blob);
            io::copy(&mut layer.archive, &mut archive)?;
            archive.hasher.finish()
        }
        Packing::Gzip => {
            let encoder = flate2::write::GzEncoder::new(&mut blob, flate2::Compression::fast());
            let mut archive = Hashing::new(encoder);
            io::copy(&mut layer.archive, &mut archive)?;
            archive.to.finish()?;
            archive.hasher.finish()
        }
        Packing::Zstd => {
            let mut archive = Hashing::new(zstd::Encoder::new(&mut blob, 3)?);
            io::copy(&mut layer.archive, &mut archive)?;
            archive.to.finish()?;
            archive.hasher.finish()
        }
    };
    blob.flush()?;
    let digest = blob.hasher.finish();
    fs_err::rename(path, blobs.join(digest.hex()))?;
    let descriptor = json!({
        "mediaType": layer.packing.media_type(),
        "digest": digest.to_string(),
        "size": blob.bytes,
    });
    Ok((descriptor, diff_id))
}

fn write_json(blobs: &Path, media_type: &str, value: &Value) -> anyhow::Result<Value> {
    let bytes = serde_json::to_vec(value)?;
    let digest = Digest::sha256(&bytes);
    fs_err::write(blobs.join(digest.hex()), &bytes)?;
    Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}))
}
