//! Opening images: from a location to what it holds.

use anyhow::{Context as _, Result};
use draught_importer::Opened;
use draught_oci::{Any, Descriptor, Document, Location, Manifest, Platform, Selector};
use draught_source::{BackendLocation, Blobs, Client, ObjectStore, Repository};

use crate::settings::Settings;

/// Who talks to registries for this command.
pub(crate) fn client(settings: &Settings) -> Client {
    Client::new(draught_source::Settings {
        plain_http: settings.plain_http.clone(),
        ..draught_source::Settings::from_env()
    })
}

/// The same place for whoever runs in another directory.
pub(crate) fn absolute(backend: &BackendLocation) -> Result<BackendLocation> {
    Ok(match backend.as_directory() {
        Some(dir) => BackendLocation::directory(std::path::absolute(dir)?),
        None => backend.clone(),
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
    pub(crate) blobs: Blobs,
    /// The manifest or index itself.
    pub(crate) descriptor: Descriptor,
    /// Its images: one, or those of the index. Manifests in an index that can't be had are errors.
    pub(crate) images: Vec<Result<Image>>,
}

/// Fetches the manifest or index of a location, and the manifests that an index names.
/// `backend` has blobs that are no layers.
pub(crate) async fn named(
    client: &Client,
    location: &Location,
    backend: Option<&BackendLocation>,
) -> Result<Named> {
    let (repository, selector) = client
        .open(location)
        .await
        .with_context(|| format!("open {location}"))?;
    let any = repository
        .manifest(&selector)
        .await
        .with_context(|| format!("fetch the manifest of {location}"))?;
    let descriptor = any.descriptor();
    let backend = backend.map(|backend| ObjectStore::open(backend, client));
    let backend = backend.transpose().context("use the blob backend")?;
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
    let blobs = Blobs::new(repository, backend);
    for image in images.iter().flatten() {
        blobs.are_in_repository(&image.manifest.content().layers);
    }
    Ok(Named {
        blobs,
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
pub(crate) async fn import(blobs: &Blobs, manifest: &Manifest) -> Result<Opened> {
    Ok(draught_packer::open_image(blobs, manifest).await?)
}
