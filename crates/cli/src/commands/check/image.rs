//! One image: its configuration, then its layers as the format has them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use draught_digest::Digest;
use draught_importer::{Format, detect};
use draught_oci::{Descriptor, ImageConfig, Manifest};
use draught_source::Blobs;

use super::fault::{Fault, Findings};
use super::{archive, content};
use crate::open::Image;
use crate::progress::Reporter;

/// Checks an image. Errors are only for what stops the check itself.
pub(crate) async fn check(
    source: &Blobs,
    image: &Image,
    findings: &mut Findings,
    reporter: &Reporter,
) -> Result<()> {
    let manifest = image.manifest.content();
    let digest = image.manifest.digest();
    let config = source.repository().config(manifest).await;
    let config = config.context("read the configuration");
    let config = match config {
        Ok(config) => Some(config.content().clone()),
        Err(error) => {
            findings.add(Fault::from_error(&manifest.config.digest, &error));
            None
        }
    };
    if let Some(config) = &config {
        findings.add_error(&manifest.config.digest, agree(manifest, config));
    }
    match detect(manifest) {
        Format::Nydus { bootstrap, blobs } => {
            let metadata = [Descriptor::clone(&bootstrap)];
            archive::check(source, &metadata, &[], findings, reporter).await?;
            let listed: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
            let others = others(manifest, &bootstrap, &listed);
            archive::check(source, &others, &[], findings, reporter).await?;
            content::check(source, manifest, &blobs, findings, reporter).await
        }
        Format::Estargz { layers } => {
            let layers: Vec<_> = layers.into_iter().map(|(layer, _)| layer).collect();
            content::check(source, manifest, &layers, findings, reporter).await
        }
        Format::Plain(_) => {
            let diff_ids = config.map(|config| config.diff_ids).unwrap_or_default();
            archive::check(source, &manifest.layers, &diff_ids, findings, reporter).await
        }
        Format::Unsupported { why } => {
            findings.add(Fault::of(&digest, why));
            Ok(())
        }
    }
}

/// Layers that are neither metadata nor data: they still belong to the image.
fn others(
    manifest: &Manifest,
    bootstrap: &Descriptor,
    blobs: &BTreeSet<Digest>,
) -> Vec<Descriptor> {
    let known =
        |layer: &&Descriptor| layer.digest != bootstrap.digest && !blobs.contains(&layer.digest);
    manifest.layers.iter().filter(known).cloned().collect()
}

/// Manifest and configuration must tell of the same layers.
fn agree(manifest: &Manifest, config: &ImageConfig) -> Result<()> {
    let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
    if layers != diff_ids {
        bail!("the manifest has {layers} layers, the configuration {diff_ids}");
    }
    Ok(())
}
