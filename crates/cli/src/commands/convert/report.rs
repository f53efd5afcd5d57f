//! What became of a conversion, for programs and for people.

use std::time::Duration;

use draught_oci::Location;
use draught_packer::{Converted, ConvertedImage};
use serde::Serialize;

use crate::output;
use crate::units::{Seconds, Size};

/// In the shape that `--format json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    src: String,
    dst: String,
    /// What the tag stands for now.
    digest: String,
    seconds: f64,
    images: Vec<Image>,
    /// Documents that were carried over as they are.
    carried_over: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Image {
    platform: String,
    source: Option<String>,
    manifest: String,
    layers: Vec<Layer>,
    blobs: Vec<Blob>,
    bootstrap_layer_bytes: u64,
    xattrs_left_out: u64,
}

#[derive(Debug, Serialize)]
struct Layer {
    digest: Option<String>,
    stored_bytes: u64,
    decoded_bytes: u64,
    entries: u64,
    chunks: u64,
    /// Those that no lower layer had.
    new_chunks: u64,
    /// Of the blob that it became; 0 for none.
    blob_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Blob {
    digest: String,
    bytes: u64,
}

impl Report {
    pub(crate) fn new(
        src: &Location,
        dst: &Location,
        converted: &Converted,
        took: Duration,
    ) -> Self {
        Self {
            src: src.to_string(),
            dst: dst.to_string(),
            digest: converted.digest.to_string(),
            seconds: took.as_secs_f64(),
            images: converted.images.iter().map(Image::new).collect(),
            carried_over: converted
                .carried_over
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// For people: each layer and what it became, then where it all is.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for image in &self.images {
            let head = ["layer", "files", "chunks", "new", "archive", "was", "is"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            for (index, layer) in image.layers.iter().enumerate() {
                rows.push(vec![
                    (index + 1).to_string(),
                    layer.entries.to_string(),
                    layer.chunks.to_string(),
                    layer.new_chunks.to_string(),
                    Size(layer.decoded_bytes).to_string(),
                    Size(layer.stored_bytes).to_string(),
                    Size(layer.blob_bytes).to_string(),
                ]);
            }
            let sum = |bytes: fn(&Layer) -> u64| image.layers.iter().map(bytes).sum();
            let was = sum(|layer| layer.stored_bytes);
            let is = sum(|layer| layer.blob_bytes) + image.bootstrap_layer_bytes;
            let bootstrap = Size(image.bootstrap_layer_bytes).to_string();
            let blank = String::new;
            rows.push(vec![
                "metadata".to_owned(),
                blank(),
                blank(),
                blank(),
                blank(),
                blank(),
                bootstrap,
            ]);
            let (was, is) = (Size(was).to_string(), Size(is).to_string());
            rows.push(vec![
                image.platform.clone(),
                blank(),
                blank(),
                blank(),
                blank(),
                was,
                is,
            ]);
            text.push_str(&output::table(&rows));
            if image.xattrs_left_out > 0 {
                text.push_str(&format!(
                    "{} extended attributes can't be expressed and were left out\n",
                    image.xattrs_left_out
                ));
            }
        }
        if !self.carried_over.is_empty() {
            text.push_str(&format!(
                "{} manifests carried over\n",
                self.carried_over.len()
            ));
        }
        let took = Seconds(Duration::from_secs_f64(self.seconds));
        text.push_str(&format!("{}\n{} in {took}\n", self.dst, self.digest));
        text
    }
}

impl Image {
    fn new(image: &ConvertedImage) -> Self {
        let layers = image.layers.iter().map(|layer| Layer {
            digest: layer.digest.as_ref().map(ToString::to_string),
            stored_bytes: layer.stored_bytes,
            decoded_bytes: layer.decoded_bytes,
            entries: layer.entries,
            chunks: layer.chunks,
            new_chunks: layer.new_chunks,
            blob_bytes: layer.blob_bytes,
        });
        let blobs = image.blobs.iter().map(|(digest, bytes)| Blob {
            digest: digest.to_string(),
            bytes: *bytes,
        });
        Self {
            platform: image.platform.to_string(),
            source: image.source.as_ref().map(ToString::to_string),
            manifest: image.manifest.to_string(),
            layers: layers.collect(),
            blobs: blobs.collect(),
            bootstrap_layer_bytes: image.bootstrap_layer_bytes,
            xattrs_left_out: image.xattrs_left_out,
        }
    }
}
