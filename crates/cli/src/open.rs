//! Opening images: from a location to what it holds.

use anyhow::{Context as _, Result};
use draught_importer::{Import, Limits, Opened, Step};
use draught_oci::{Any, Descriptor, Document, Location, Manifest, Platform, Selector};
use draught_source::{Client, Repository, Source as _};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::settings::Settings;

/// Pieces of metadata that are fetched at once.
const READS_AT_ONCE: usize = 8;

/// Who talks to registries for this command.
pub(crate) fn client(settings: &Settings) -> Client {
    Client::new(draught_source::Settings {
        plain_http: settings.plain_http.clone(),
        ..draught_source::Settings::from_env()
    })
}

/// An image of a location, and for which platform its index says it is.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its manifest, verified.
    pub(crate) manifest: Document<Manifest>,
    /// What an index says of it.
    pub(crate) platform: Option<Platform>,
}

/// What a reference stands for.
#[derive(Debug)]
pub(crate) struct Named {
    /// Where it is.
    pub(crate) repository: Repository,
    /// The manifest or index itself.
    pub(crate) descriptor: Descriptor,
    /// Its images: one, or those of the index. Manifests in an index that can't be had are errors.
    pub(crate) images: Vec<Result<Image>>,
}

/// Fetches the manifest or index of a location, and the manifests that an index names.
pub(crate) async fn named(client: &Client, location: &Location) -> Result<Named> {
    let (repository, selector) = client
        .open(location)
        .await
        .with_context(|| format!("open {location}"))?;
    let any = repository
        .manifest(&selector)
        .await
        .with_context(|| format!("fetch the manifest of {location}"))?;
    let descriptor = any.descriptor();
    let images = match any {
        Any::Manifest(manifest) => vec![Ok(Image {
            manifest,
            platform: None,
        })],
        Any::Index(index) => {
            let mut images = Vec::new();
            for entry in index.images() {
                images.push(image(&repository, entry).await);
            }
            images
        }
    };
    Ok(Named {
        repository,
        descriptor,
        images,
    })
}

async fn image(repository: &Repository, entry: &Descriptor) -> Result<Image> {
    let selector = Selector::Digest(entry.digest);
    let fetched = repository.manifest(&selector).await;
    match fetched.with_context(|| format!("fetch the manifest {}", entry.digest))? {
        Any::Manifest(manifest) => Ok(Image {
            manifest,
            platform: entry.platform.clone(),
        }),
        Any::Index(_) => anyhow::bail!("read {}: it is an index within an index", entry.digest),
    }
}

/// Reads the metadata of an image that can be read lazily.
pub(crate) async fn import(repository: &Repository, manifest: &Manifest) -> Result<Opened> {
    let mut import = Import::new(manifest, &Limits::default())?;
    loop {
        let reads = match import.step()? {
            Step::Done(opened) => return Ok(*opened),
            Step::Read(reads) => reads,
        };
        let fetched: Vec<_> = stream::iter(reads)
            .map(|read| async move {
                let bytes = repository.read_range(&read.blob, read.range.clone()).await;
                let bytes = bytes
                    .with_context(|| format!("read bytes {:?} of {}", read.range, read.blob))?;
                anyhow::Ok((read, bytes))
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for (read, bytes) in fetched {
            import.give(&read, bytes.into())?;
        }
    }
}
