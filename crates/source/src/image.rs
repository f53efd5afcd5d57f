//! From a tag to the image for a platform.

use draught_oci::{
    Any, Descriptor, Document, ImageConfig, Index, Manifest, Platform, Selector, media_type,
};

use crate::error::SourceError;
use crate::repository::{Repository, Source as _};

/// Indexes within indexes that are followed.
const DEPTH_MAX: usize = 4;

/// Platforms that an error names.
const PLATFORMS_SHOWN: usize = 20;

impl Repository {
    /// The manifest of the image that runs on `platform`: through an index if there is one. A manifest that
    /// stands alone is taken as it is.
    ///
    /// # Errors
    /// [`SourceError::Platform`] when no image fits, and all others.
    pub async fn image(
        &self,
        selector: &Selector,
        platform: &Platform,
    ) -> Result<Document<Manifest>, SourceError> {
        let mut selector = selector.clone();
        let mut is_untold = false;
        for _ in 0..DEPTH_MAX {
            match self.manifest(&selector).await? {
                Any::Manifest(manifest) => {
                    if is_untold && media_type::is_image_config(&manifest.config.media_type) {
                        self.check_platform(&manifest, platform).await?;
                    }
                    return Ok(manifest);
                }
                Any::Index(index) => {
                    let chosen = index
                        .select(platform)
                        .ok_or_else(|| self.no_platform(&index, platform))?;
                    is_untold = chosen.platform.is_none();
                    selector = Selector::Digest(chosen.digest);
                }
            }
        }
        Err(SourceError::Format {
            path: self.label().into(),
            expected: "an image",
            reason: format!("more than {DEPTH_MAX} indexes lie within each other"),
        })
    }

    /// An image's configuration.
    ///
    /// # Errors
    /// Of every class.
    pub async fn config(&self, manifest: &Manifest) -> Result<Document<ImageConfig>, SourceError> {
        self.document(&manifest.config).await
    }

    /// What the index did not tell, the configuration does.
    async fn check_platform(
        &self,
        manifest: &Manifest,
        platform: &Platform,
    ) -> Result<(), SourceError> {
        let config = self.config(manifest).await?;
        if platform.rank(&config.platform).is_some() {
            return Ok(());
        }
        Err(SourceError::Platform {
            what: self.label(),
            platform: Box::new(platform.clone()),
            available: config.platform.to_string(),
        })
    }

    fn no_platform(&self, index: &Index, platform: &Platform) -> SourceError {
        let shown = |image: &Descriptor| image.platform.as_ref().map(Platform::to_string);
        let mut available: Vec<String> = index.images().filter_map(shown).collect();
        available.truncate(PLATFORMS_SHOWN);
        SourceError::Platform {
            what: self.label(),
            platform: Box::new(platform.clone()),
            available: available.join(", "),
        }
    }
}
