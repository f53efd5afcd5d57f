//! A directory as an image.

use std::sync::Arc;

use draught_oci::{Any, Document, ImageConfig, Platform};

use super::error::ConvertError;
use super::image;
use super::options::{Converted, PlatformChoice};
use super::push::Pusher;
use crate::blocking::blocking;
use crate::directory::Directory;
use crate::image::ImagePacker;
use crate::options::PackOptions;
use crate::progress::Progress;

/// Packs a directory into an image of one layer, with a configuration that says nothing but the platform.
pub(super) async fn convert(
    mut directory: Directory,
    options: &PackOptions,
    platform: &PlatformChoice,
    tag: &str,
    mut pusher: Pusher,
    progress: &Arc<dyn Progress>,
) -> Result<Converted, ConvertError> {
    let platform = match platform {
        PlatformChoice::One(platform) => platform.clone(),
        PlatformChoice::Host | PlatformChoice::All => Platform::host(),
    };
    progress.image_started(&platform, 1);
    let mut packer =
        ImagePacker::new(options.clone()).map_err(|source| ConvertError::Options { source })?;
    let told = Arc::clone(progress);
    let outcome;
    (packer, outcome) = blocking(move || {
        let outcome = packer.add_directory(&mut directory, &*told);
        (packer, outcome)
    })
    .await;
    let (report, blob) = outcome.map_err(|source| ConvertError::Directory {
        source: Box::new(source),
    })?;
    let digest = blob.as_ref().map(|blob| blob.content.digest());
    image::push_blob(blob, &mut pusher).await?;
    let config = Document::write(ImageConfig::new(platform, Vec::new()));
    let (manifest, converted) =
        image::finish_directory(packer, report, digest, &config, &mut pusher).await?;
    let manifest = Any::Manifest(manifest);
    pusher.put(&manifest, Some(tag)).await?;
    Ok(Converted {
        digest: manifest.digest(),
        images: vec![converted],
        carried_over: Vec::new(),
        cache: pusher.caches().report(),
    })
}
