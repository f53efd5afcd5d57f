//! From a location to a location.

use std::sync::Arc;

use draught_oci::{Any, Document, Location, Manifest, Platform};
use draught_source::{Client, Repository};

use super::directory;
use super::error::ConvertError;
use super::image;
use super::index::{self, Conversion};
use super::options::{ConvertOptions, Converted, PlatformChoice};
use super::push::Pusher;
use crate::cache::Caches;
use crate::directory::Directory;
use crate::progress::Progress;

/// Converts the image at `from` and writes it to `to`, whose tag changes last of all.
///
/// Ends early, without a trace behind the tag, when it is dropped.
///
/// # Errors
/// See [`ConvertError`].
pub async fn convert(
    client: &Client,
    from: &Location,
    to: &Location,
    options: &ConvertOptions,
    progress: Arc<dyn Progress>,
) -> Result<Converted, ConvertError> {
    let pack = &options.pack;
    pack.check()
        .map_err(|source| ConvertError::Options { source })?;
    if let Location::Directory { rootfs } = from {
        let directory =
            Directory::open(rootfs).map_err(|source| ConvertError::OpenDirectory { source })?;
        let (to, tag) = create(client, to).await?;
        let why = "a directory has no digest by which it could be found again";
        let caches = Caches::unused(&options.cache.locations, why, Arc::clone(&progress));
        let pusher = Pusher::new(to, None, caches, Arc::clone(&progress));
        let platform = &options.platform;
        return Box::pin(directory::convert(
            directory, pack, platform, &tag, pusher, &progress,
        ))
        .await;
    }
    let read_failed = |source| ConvertError::Read {
        what: from.to_string(),
        source,
    };
    let (source, selector) = client.open(from).await.map_err(read_failed)?;
    let document = source.manifest(&selector).await.map_err(read_failed)?;
    let chosen = match (document, &options.platform) {
        (Any::Index(found), PlatformChoice::All) => {
            let (to, tag) = create(client, to).await?;
            let told = Arc::clone(&progress);
            let caches = Box::pin(Caches::open(client, &options.cache, &to, &tag, told)).await;
            let conversion = Conversion {
                from: &source,
                options: pack,
                pusher: Pusher::new(to, Some(&source), caches, Arc::clone(&progress)),
                progress: &progress,
                images: Vec::new(),
                carried_over: Vec::new(),
            };
            return Box::pin(conversion.run(&found, &tag)).await;
        }
        (Any::Index(found), PlatformChoice::One(platform)) => {
            Chosen::of_index(&source, &found, platform, true).await?
        }
        (Any::Index(found), PlatformChoice::Host) => {
            Chosen::of_index(&source, &found, &Platform::host(), true).await?
        }
        (Any::Manifest(manifest), PlatformChoice::One(platform)) => {
            Chosen::check(&source, manifest, Some(platform)).await?
        }
        (Any::Manifest(manifest), PlatformChoice::Host | PlatformChoice::All) => {
            Chosen::check(&source, manifest, None).await?
        }
    };
    let (to, tag) = create(client, to).await?;
    let told = Arc::clone(&progress);
    let caches = Box::pin(Caches::open(client, &options.cache, &to, &tag, told)).await;
    let mut pusher = Pusher::new(to, Some(&source), caches, Arc::clone(&progress));
    let Chosen { manifest, config } = chosen;
    let (manifest, converted) = Box::pin(image::convert(
        &source,
        &manifest,
        &config,
        pack,
        &mut pusher,
        &progress,
    ))
    .await?;
    let manifest = Any::Manifest(manifest);
    pusher.put(&manifest, Some(&tag)).await?;
    Ok(Converted {
        digest: manifest.digest(),
        images: vec![converted],
        carried_over: Vec::new(),
        cache: pusher.commit_caches().await,
    })
}

async fn create(client: &Client, to: &Location) -> Result<(Repository, String), ConvertError> {
    let created = client.create(to).await;
    created.map_err(|source| ConvertError::Write {
        what: to.to_string(),
        source,
    })
}

/// An image that can be converted.
struct Chosen {
    manifest: Document<Manifest>,
    config: Document<draught_oci::ImageConfig>,
}

impl Chosen {
    /// The image of an index for a platform.
    async fn of_index(
        from: &Repository,
        found: &Document<draught_oci::Index>,
        platform: &Platform,
        may_nest: bool,
    ) -> Result<Self, ConvertError> {
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
    ) -> Result<Self, ConvertError> {
        // First of all, because what is no image has no configuration to read.
        image::check(&manifest, &Platform::new("linux", "", ""))?;
        let config = index::read_config(from, &manifest.config).await?;
        if let Some(wanted) = platform
            && wanted.rank(&config.platform).is_none()
        {
            return Err(ConvertError::NoPlatform {
                wanted: Box::new(wanted.clone()),
                available: vec![config.platform.clone()],
            });
        }
        image::check(&manifest, &config.platform)?;
        Ok(Self { manifest, config })
    }
}
