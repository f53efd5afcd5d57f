//! The demonstration's image: made of this machine's files, or one that was named.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use draught_importer::{Format, detect};
use draught_oci::{
    Any, Descriptor, Document, ImageConfig, Location, Manifest, Platform, RunConfig, media_type,
};
use draught_source::{BlobReader, Client, Payload, RegistryRepository, Repository};
use tokio::runtime::Handle;

use super::cancel::Cancel;
use super::inside::Program;
use super::layer::{self, Layer};
use super::runtime::Runtime;
use super::selection::{self, Selection};

/// Its tag.
pub(crate) const TAG: &str = "plain";

/// An image in the demonstration's registry, and what to run in it.
#[derive(Debug)]
pub(crate) struct Published {
    /// For people.
    pub(crate) name: String,
    pub(crate) manifest: Document<Manifest>,
    pub(crate) program: Program,
}

/// Makes the layers, on a thread each: compressing is what takes long.
pub(crate) fn layers(
    runtime: &Runtime,
    ballast_bytes: u64,
    scratch: &Path,
    cancel: &Cancel,
) -> Result<Vec<Layer>> {
    let selections = selection::layers(runtime, ballast_bytes, cancel)?;
    let mut layers = std::thread::scope(|scope| {
        let workers: Vec<_> = selections
            .iter()
            .enumerate()
            .map(|(index, selection)| {
                let file = scratch.join(format!("layer-{index}.tar.gz"));
                scope.spawn(move || layer::write(selection, &file, cancel))
            })
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<Layer>>| {
            let joined = worker.join();
            joined.map_err(|_| anyhow!("make a layer: its thread panicked"))?
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let top = scratch.join("layer-top.tar.gz");
    layers.push(layer::write_top(removed(&selections), &top)?);
    Ok(layers)
}

/// A directory for the top layer to take away: something that no program needs.
fn removed(selections: &[Selection]) -> Option<&'static Path> {
    const CANDIDATES: &[&str] = &["/usr/share/doc", "/usr/share/man", "/usr/share/info"];
    let there = |path: &PathBuf| selections.iter().any(|it| it.paths.contains(path));
    let found = CANDIDATES.iter().find(|path| there(&PathBuf::from(path)));
    found.map(|path| Path::new(*path))
}

/// Pushes layers, configuration and manifest under [`TAG`].
pub(crate) async fn push(
    repository: &RegistryRepository,
    runtime: &Runtime,
    layers: &[Layer],
) -> Result<Published> {
    let mut descriptors = Vec::new();
    for layer in layers {
        let kind = media_type::LAYER_TAR_GZIP;
        let descriptor = Descriptor::new(kind, layer.digest, layer.stored_bytes);
        let payload = Payload::File(layer.file.clone());
        repository
            .push_blob(&descriptor, &payload, &[])
            .await
            .with_context(|| format!("push the layer \"{}\"", layer.name))?;
        fs_err::remove_file(&layer.file)?;
        descriptors.push(descriptor);
    }
    let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let mut config = ImageConfig::new(Platform::host(), diff_ids);
    config.run = RunConfig {
        cmd: runtime.command.clone(),
        working_dir: "/".to_owned(),
        ..config.run
    };
    let program = Program::of(&config.run, &[])?;
    let config = Document::write(config);
    let config_descriptor = config.descriptor();
    repository
        .push_blob(&config_descriptor, &config.into_bytes().into(), &[])
        .await
        .context("push the configuration")?;
    let manifest = Document::write(Manifest::new(config_descriptor, descriptors));
    put(repository, &manifest).await?;
    Ok(Published {
        name: format!("{} and files of this machine", runtime.name),
        manifest,
        program,
    })
}

async fn put(repository: &RegistryRepository, manifest: &Document<Manifest>) -> Result<()> {
    repository
        .put_manifest(Some(TAG), &Any::Manifest(manifest.clone()))
        .await
        .context("push the manifest")
}

/// Copies an image from where it is, so that both ways read it from the same registry.
pub(crate) async fn copy(
    client: &Client,
    from: &Location,
    to: &RegistryRepository,
    command: &[String],
    scratch: &Path,
) -> Result<Published> {
    let (source, selector) = client.open(from).await?;
    let manifest = source.image(&selector, &Platform::host()).await?;
    match detect(&manifest) {
        Format::Plain(_) | Format::Estargz { .. } => {}
        Format::Nydus { .. } => {
            bail!(
                "compare {from} with a full pull: it is lazy already; name the image that it was made of"
            )
        }
        Format::Unsupported { why } => bail!("use {from}: {why}"),
    }
    let config = source.config(&manifest).await?;
    for blob in manifest.content().blobs() {
        let file = scratch.join("copied-blob");
        save(&source, blob, &file).await?;
        to.push_blob(blob, &Payload::File(file.clone()), &[])
            .await
            .with_context(|| format!("push {}", blob.digest))?;
        fs_err::remove_file(&file)?;
    }
    put(to, &manifest).await?;
    Ok(Published {
        name: from.to_string(),
        manifest,
        program: Program::of(&config.content().run, command)?,
    })
}

/// Fetches a blob into a file.
async fn save(source: &Repository, blob: &Descriptor, file: &Path) -> Result<()> {
    let mut reader = BlobReader::new(source.blob(blob).await?, &Handle::current());
    let mut file = fs_err::File::create(file)?;
    let copy = move || std::io::copy(&mut reader, &mut file);
    let copied = tokio::task::spawn_blocking(copy).await?;
    copied.with_context(|| format!("fetch {}", blob.digest))?;
    Ok(())
}
