//! Layers that are archives: their digests, and those of what they decompress to.

use std::io::{self, Read};

use anyhow::{Context as _, Result};
use draught_codec::{HashingReader, LayerDecoder, LayerLimits};
use draught_digest::{Algorithm, Digest};
use draught_oci::Descriptor;
use draught_source::{BlobReader, Blobs};
use tokio::runtime::Handle;

use super::fault::{Fault, Findings};
use crate::progress::Reporter;

/// Checks layers; `diff_ids` are what the configuration says of them, in the same order, as far as
/// they are known.
pub(crate) async fn check(
    source: &Blobs,
    layers: &[Descriptor],
    diff_ids: &[Digest],
    findings: &mut Findings,
    reporter: &Reporter,
) -> Result<()> {
    for (index, layer) in layers.iter().enumerate() {
        reporter.part(format!("layer {}", layer.digest));
        findings.blobs += 1;
        findings.bytes = findings.bytes.saturating_add(layer.size);
        let diff_id = diff_ids.get(index).copied();
        let blob = match source.blob(layer).await.context("read the layer") {
            Ok(blob) => BlobReader::new(blob, &Handle::current()),
            Err(error) => {
                findings.add(Fault::from_error(&layer.digest, &error));
                continue;
            }
        };
        let checked = tokio::task::spawn_blocking(move || read(blob, diff_id)).await?;
        findings.add_error(&layer.digest, checked);
    }
    Ok(())
}

/// Reads a layer to its end, through its compression.
fn read(blob: impl Read, diff_id: Option<Digest>) -> Result<()> {
    let decoder = LayerDecoder::new(blob, LayerLimits::default())?;
    let mut hashed = HashingReader::new(decoder, Algorithm::Sha256);
    io::copy(&mut hashed, &mut io::sink()).context("read the layer")?;
    let (digest, _, decoder) = hashed.finish();
    // What the decoder has left must be read too: only then is the blob's digest verified.
    io::copy(&mut decoder.into_inner(), &mut io::sink()).context("read the layer")?;
    if let Some(diff_id) = diff_id.filter(|diff_id| *diff_id != digest) {
        anyhow::bail!("it decompresses to {digest}, the configuration says {diff_id}");
    }
    Ok(())
}
