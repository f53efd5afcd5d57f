//! The demonstration, step by step.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use draught_node::{MountRequest, MountStatus, Origin, Probe};
use draught_oci::{Location, Manifest, Platform, Reference, Selector};
use draught_packer::{ConvertOptions, Output, PackOptions, convert};
use draught_registry::{Registry, serve};
use draught_source::{Blobs, Client, RegistryRepository, Repository};
use tokio::net::TcpListener;

use super::cancel::Wanted;
use super::command::Args;
use super::image::Published;
use super::inside::{Program, Ran};
use super::report::{Report, Way};
use super::runtime::Runtime;
use super::stage::Stage;
use super::{full_pull, image};
use crate::args::{Format, Progress};
use crate::commands::convert::Tracker;
use crate::settings::Settings;
use crate::units::{Seconds, Size};
use crate::{open, output};

/// The repository that everything goes to.
const REPOSITORY: &str = "demo";

/// The tag of the image that is mounted.
const LAZY_TAG: &str = "lazy";

/// Bytes of a block as `stat` counts them.
const STAT_BLOCK_BYTES: u64 = 512;

/// Tells a person what is going on.
fn say(settings: &Settings, words: &str) {
    if settings.format == Format::Text {
        output::say(words);
    }
}

/// Runs work that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// All of it; gives what was found.
pub(crate) async fn show(
    args: &Args,
    settings: &Settings,
    stage: &Stage,
    ability: &Probe,
) -> Result<Report> {
    let wanted = Wanted::default();
    let registry = Registry::open(stage.join("registry")).context("open the registry")?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("listen on loopback")?;
    let server = serve(registry, listener).context("serve the registry")?;
    let host = server.addr().to_string();
    let client = open::client(settings);
    let repository = client.registry(&host, REPOSITORY)?;

    let published = publish(args, settings, stage, &wanted, &client, &repository).await?;
    let lazily = Location::Registry(Reference::new(
        &host,
        REPOSITORY,
        &Selector::Tag(LAZY_TAG.to_owned()),
    )?);
    let (manifest, convert_seconds) = pack(settings, stage, &client, &host, &lazily).await?;
    let (said, full) = pull(settings, stage, &wanted, &repository, &published).await?;
    let lazy = mount(
        settings,
        stage,
        &wanted,
        &lazily,
        &published.program,
        &manifest,
    )
    .await?;
    let opened = open::import(
        &Blobs::new(Repository::Registry(repository), None),
        &manifest,
    )
    .await?;
    let (files, file_bytes) = crate::commands::inspect::files_of(&opened.tree);
    server.shutdown().await;
    Ok(Report {
        image: published.name,
        said,
        files,
        file_bytes,
        convert_seconds,
        transport: lazy.1.transport.clone(),
        why_transport: why(ability),
        full,
        lazy: lazy.0,
    })
}

/// Why this transport.
fn why(ability: &Probe) -> String {
    let mut choices = ability.transports.iter();
    let chosen = choices.find(|choice| Some(choice.transport) == ability.transport);
    chosen.map_or_else(String::new, |choice| choice.why.clone())
}

/// Makes or copies the image.
async fn publish(
    args: &Args,
    settings: &Settings,
    stage: &Stage,
    wanted: &Wanted,
    client: &Client,
    repository: &RegistryRepository,
) -> Result<Published> {
    let start = Instant::now();
    let published = if let Some(from) = &args.image {
        say(
            settings,
            &format!("copying {from} to the embedded registry"),
        );
        image::copy(client, from, repository, &args.command, &stage.join("")).await?
    } else {
        let runtime = Runtime::find()?;
        say(
            settings,
            &format!(
                "making an image: {}, and {} of this machine's files",
                runtime.name, args.size
            ),
        );
        let (bytes, dir, cancel) = (args.size.0, stage.join(""), wanted.cancel());
        let (runtime, layers) = blocking(move || {
            let layers = image::layers(&runtime, bytes, &dir, &cancel)?;
            Ok((runtime, layers))
        })
        .await?;
        for layer in &layers {
            let sizes = format!(
                "{}, {} stored",
                Size(layer.tar_bytes),
                Size(layer.stored_bytes)
            );
            say(
                settings,
                &format!("  {}: {} entries, {sizes}", layer.name, layer.entries),
            );
        }
        image::push(repository, &runtime, &layers).await?
    };
    say(
        settings,
        &format!("pushed, after {}", Seconds(start.elapsed())),
    );
    Ok(published)
}

/// Converts the image; gives the new manifest and how long it took.
async fn pack(
    settings: &Settings,
    stage: &Stage,
    client: &Client,
    host: &str,
    to: &Location,
) -> Result<(Manifest, f64)> {
    say(settings, "converting it");
    let tag = Selector::Tag(image::TAG.to_owned());
    let from = Location::Registry(Reference::new(host, REPOSITORY, &tag)?);
    let options = ConvertOptions {
        output: Output::Nydus(PackOptions {
            spool_dir: stage.join(""),
            ..PackOptions::default()
        }),
        ..ConvertOptions::default()
    };
    let start = Instant::now();
    // Lines for each layer would drown the story.
    let progress = match settings.progress {
        Progress::Plain => Progress::None,
        progress => progress,
    };
    let tracker = Arc::new(Tracker::new(progress));
    convert(client, &from, to, &options, tracker)
        .await
        .context("convert the image")?;
    let took = start.elapsed();
    let (repository, selector) = client.open(to).await?;
    let manifest = repository.image(&selector, &Platform::host()).await?;
    Ok((manifest.content().clone(), took.as_secs_f64()))
}

/// Runs the program twice in a tree.
async fn run_twice(wanted: &Wanted, program: &Program, root: &Path) -> Result<(Ran, Ran)> {
    let (program, root, cancel) = (program.clone(), root.to_owned(), wanted.cancel());
    blocking(move || Ok((program.time(&root, &cancel)?, program.time(&root, &cancel)?))).await
}

/// The usual way.
async fn pull(
    settings: &Settings,
    stage: &Stage,
    wanted: &Wanted,
    repository: &RegistryRepository,
    published: &Published,
) -> Result<(String, Way)> {
    say(
        settings,
        "pulling and unpacking all of it, and running the program",
    );
    let root = stage.dir("unpacked")?;
    let layers = &published.manifest.content().layers;
    let start = Instant::now();
    full_pull::unpack(repository, layers, &root, &wanted.cancel()).await?;
    let ready = start.elapsed();
    let (ran, again) = run_twice(wanted, &published.program, &root).await?;
    let stored_bytes = stored_bytes(&published.manifest);
    let way = Way {
        stored_bytes,
        drawn_bytes: stored_bytes,
        disk_bytes: blocking(move || disk_bytes(&root)).await?,
        ..Way::new(ready, &ran, &again)
    };
    Ok((ran.said, way))
}

/// The lazy way.
async fn mount(
    settings: &Settings,
    stage: &Stage,
    wanted: &Wanted,
    image: &Location,
    program: &Program,
    manifest: &Manifest,
) -> Result<(Way, MountStatus)> {
    say(settings, "mounting it lazily, and running the program");
    let root = stage.dir("mounted")?;
    let daemon = stage.daemon();
    let origin = Origin {
        reference: image.to_string(),
        plain_http: Vec::new(),
        credentials: Vec::new(),
        blob_backend: None,
    };
    let executable = std::env::current_exe().context("find this program")?;
    let (client, dir) = (daemon.clone(), root.clone());
    let ready = blocking(move || {
        // As on every node, the daemon is there before the first container.
        client.ensure_running(&executable)?;
        let start = Instant::now();
        client.mount(MountRequest {
            origin,
            dir,
            prefetch_all: false,
            transport: None,
        })?;
        Ok(start.elapsed())
    })
    .await?;
    let (ran, again) = run_twice(wanted, program, &root).await?;
    let state = stage.state();
    let (status, disk_bytes) =
        blocking(move || Ok((daemon.status()?, disk_bytes(&state)?))).await?;
    let status = status.mounts.into_iter().find(|mount| mount.dir == root);
    let status = status.context("find the mount in the daemon's list")?;
    let metadata = metadata_bytes(manifest);
    let way = Way {
        stored_bytes: stored_bytes(manifest),
        drawn_bytes: status.bytes_fetched.saturating_add(metadata),
        disk_bytes,
        ..Way::new(ready, &ran, &again)
    };
    Ok((way, status))
}

/// All that a manifest names.
fn stored_bytes(manifest: &Manifest) -> u64 {
    manifest
        .blobs()
        .map(|blob| blob.size)
        .fold(0, u64::saturating_add)
}

/// What is read to mount an image: its configuration and its bootstrap.
fn metadata_bytes(manifest: &Manifest) -> u64 {
    match draught_importer::detect(manifest) {
        draught_importer::Format::Nydus { bootstrap, .. } => {
            manifest.config.size.saturating_add(bootstrap.size)
        }
        _ => 0,
    }
}

/// What a directory takes on the disk, with all below it.
fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut blocks = 0_u64;
    let mut pending: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs_err::read_dir(&directory)? {
            let entry = entry?;
            let stat = fs_err::symlink_metadata(entry.path())?;
            blocks = blocks.saturating_add(stat.blocks());
            if stat.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(blocks.saturating_mul(STAT_BLOCK_BYTES))
}
