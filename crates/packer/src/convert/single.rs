//! The image of an index, or the one that stands alone.

use draught_oci::{Any, Document, ImageConfig, Manifest, Platform};
use draught_source::Repository;

use super::error::ConvertError;
use super::image;
use super::index;
use super::options::PlatformChoice;

/// Finds the image that was chosen.
pub(super) struct Chosen;

impl Chosen {
    pub(super) async fn find(
        source: &Repository,
        document: Any,
        choice: &PlatformChoice,
    ) -> Result<Document<Manifest>, ConvertError> {
        let host = Platform::host();
        let wanted = match choice {
            PlatformChoice::One(platform) => Some(platform),
            PlatformChoice::Host | PlatformChoice::All => None,
        };
        match document {
            Any::Index(found) => {
                Self::of_index(source, &found, wanted.unwrap_or(&host), true).await
            }
            Any::Manifest(manifest) => Self::check(source, manifest, wanted).await,
        }
    }

    /// The image of an index for a platform.
    async fn of_index(
        from: &Repository,
        found: &Document<draught_oci::Index>,
        platform: &Platform,
        may_nest: bool,
    ) -> Result<Document<Manifest>, ConvertError> {
        let Some(descriptor) = found.select(platform) else {
            return Err(ConvertError::NoPlatform {
                wanted: Box::new(platform.clone()),
                available: index::platforms(found),
            });
        };
        match index::read(from, descriptor).await? {
            Any::Manifest(manifest) => Self::check(from, manifest, Some(platform)).await,
            Any::Index(inner) if may_nest => {
                Box::pin(Self::of_index(from, &inner, platform, false)).await
            }
            Any::Index(inner) => Err(ConvertError::Nested {
                digest: inner.digest(),
            }),
        }
    }

    /// Reads the configuration, and checks that the image runs on `platform`.
    async fn check(
        from: &Repository,
        manifest: Document<Manifest>,
        platform: Option<&Platform>,
    ) -> Result<Document<Manifest>, ConvertError> {
        // First of all, because what is no image has no configuration to read.
        image::check(&manifest, &Platform::new("linux", "", ""))?;
        let config: Document<ImageConfig> = index::read_config(from, &manifest.config).await?;
        if let Some(wanted) = platform
            && wanted.rank(&config.platform).is_none()
        {
            return Err(ConvertError::NoPlatform {
                wanted: Box::new(wanted.clone()),
                available: vec![config.platform.clone()],
            });
        }
        image::check(&manifest, &config.platform)?;
        Ok(manifest)
    }
}
