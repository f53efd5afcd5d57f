//! What became of a conversion, for programs and for people.

use std::time::Duration;

use draught_oci::Location;
use draught_packer::{CacheReport, Converted, ConvertedImage};
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
    /// What the build caches did; null when none was named.
    cache: Option<Cache>,
    /// Whether the destination had the image already, made from the same source with the same options.
    unchanged: bool,
}

#[derive(Debug, Serialize)]
struct Cache {
    /// Layers that came from a cache.
    hits: usize,
    /// Layers that were packed.
    misses: usize,
    caches: Vec<CacheUse>,
}

#[derive(Debug, Serialize)]
struct CacheUse {
    cache: String,
    /// Layers that were taken from it.
    hits: usize,
    /// Layers of this conversion that it has now; null when it could not be written.
    exported: Option<usize>,
    /// Layers that it has now altogether.
    layers: Option<usize>,
    /// What could not be done.
    failures: Vec<String>,
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
    /// Whether a build cache had it.
    cached: bool,
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
            cache: converted.cache.as_ref().map(Cache::new),
            unchanged: converted.unchanged,
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
                    layer.label(index + 1),
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
            if image.bootstrap_layer_bytes > 0 {
                rows.push(vec![
                    "metadata".to_owned(),
                    blank(),
                    blank(),
                    blank(),
                    blank(),
                    blank(),
                    bootstrap,
                ]);
            }
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
        if let Some(cache) = &self.cache {
            text.push_str(&cache.text());
        }
        if self.unchanged {
            text.push_str("nothing to do: it was converted with these options before\n");
        }
        let took = Seconds(Duration::from_secs_f64(self.seconds));
        text.push_str(&format!("{}\n{} in {took}\n", self.dst, self.digest));
        text
    }
}

impl Layer {
    fn label(&self, number: usize) -> String {
        if self.cached {
            format!("{number} (cached)")
        } else {
            number.to_string()
        }
    }
}

impl Cache {
    fn new(report: &CacheReport) -> Self {
        let caches = report.caches.iter().map(|cache| CacheUse {
            cache: cache.cache.clone(),
            hits: cache.hits,
            exported: cache.exported,
            layers: cache.layers,
            failures: cache.failures.clone(),
        });
        Self {
            hits: report.hits,
            misses: report.misses,
            caches: caches.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} layers cached, {} packed\n", self.hits, self.misses);
        for cache in &self.caches {
            let state = match (cache.exported, cache.layers) {
                (Some(exported), Some(layers)) => {
                    format!("{exported} layers of this image in it, {layers} altogether")
                }
                _ => "not written".to_owned(),
            };
            let (name, hits) = (&cache.cache, cache.hits);
            text.push_str(&format!("cache {name}: {hits} layers taken, {state}\n"));
            for failure in &cache.failures {
                text.push_str(&format!("cache {name}: warning: {failure}\n"));
            }
        }
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
            cached: layer.cached,
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
