//! What an image is, and whether it can be converted.

use draught_importer::{Format, NYDUS_BLOB_MEDIA_TYPE, detect};
use draught_oci::{Descriptor, Document, Manifest, Platform, media_type};

use super::error::ConvertError;
use crate::pack::Output;

/// How an image is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Layer by layer.
    Layers,
    /// Its tree becomes one layer: that is all that it has.
    Tree,
    /// Not at all: it has the format already.
    AsItIs,
}

/// How an image becomes what is wanted.
pub(super) fn way(manifest: &Manifest, output: &Output) -> Way {
    match (detect(manifest), output) {
        (Format::Nydus { .. }, Output::Nydus(_)) => Way::AsItIs,
        (Format::Nydus { .. }, Output::Archives(_)) => Way::Tree,
        _ => Way::Layers,
    }
}

/// Checks that an image can be converted. [`ConvertError::System`] and [`ConvertError::Format`] say that
/// it is another kind of thing, which can still be carried over.
pub(super) fn check(
    manifest: &Document<Manifest>,
    platform: &Platform,
) -> Result<(), ConvertError> {
    if !platform.os().is_empty() && platform.os() != "linux" {
        let platform = platform.clone();
        return Err(ConvertError::System { platform });
    }
    if !media_type::is_image_config(&media_type::essence(&manifest.config.media_type)) {
        return Err(ConvertError::Format {
            manifest: manifest.digest(),
            why: format!(
                "its configuration is {:?}: it is no image",
                manifest.config.media_type
            ),
        });
    }
    let format = detect(manifest);
    if !matches!(format, Format::Nydus { .. }) {
        check_layers(&manifest.layers)?;
    }
    match format {
        // An image without layers is an image nevertheless.
        Format::Unsupported { why } if !manifest.layers.is_empty() => Err(ConvertError::Format {
            manifest: manifest.digest(),
            why,
        }),
        _ => Ok(()),
    }
}

fn check_layers(layers: &[Descriptor]) -> Result<(), ConvertError> {
    for (index, layer) in layers.iter().enumerate() {
        let media_type = media_type::essence(&layer.media_type);
        if media_type::layer_compression(&media_type).is_none()
            && media_type != NYDUS_BLOB_MEDIA_TYPE
        {
            return Err(ConvertError::MediaType {
                layer: index + 1,
                digest: layer.digest,
                media_type: layer.media_type.clone(),
            });
        }
    }
    Ok(())
}
