//! The command.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use draught_node::{KeptBlobs, Layout};
use draught_oci::{Descriptor, Location, Platform, Reference};

use super::blobs::Sources;
use super::containerd::Containerd;
use super::report::Report;
use super::tree::{self, Choice};
use crate::args::Format;
use crate::outcome::Outcome;
use crate::progress::Reporter;
use crate::settings::Settings;
use crate::{asynchronous, open, output};

/// Bring what containerd lacks of an image, so that it can be pushed, exported and committed
///
/// What was pulled lazily has no layers in containerd's content store: "content digest not found". They are
/// fetched from where the image is from, verified, and written there. Those that are there stay as they are. What
/// this node's store (--root) has of them is taken from there, where it comes back bit for bit: nydus blobs that were
/// stored as they are, or that draught's own encoders compressed.
/// Nothing is collected in between, and what was written is used again if this is cut off.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image's name in containerd, as "ctr images list" shows it
    #[arg(value_name = "REF")]
    image: String,

    /// containerd's socket
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CONTAINERD_ADDRESS",
        default_value = "/run/containerd/containerd.sock"
    )]
    containerd: PathBuf,

    /// containerd's namespace: k8s.io for Kubernetes, moby for Docker
    #[arg(
        long,
        value_name = "NS",
        env = "CONTAINERD_NAMESPACE",
        default_value = "default"
    )]
    namespace: String,

    /// Where to fetch from, if not from where REF names [default: REF, then where containerd says that it is from]
    #[arg(long, value_name = "SRC")]
    from: Option<Location>,

    /// Of an index, the image for this platform. Can be repeated [default: those whose manifest is there]
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_platforms")]
    platform: Vec<Platform>,

    /// Of an index, all images and all that is about them
    #[arg(long)]
    all_platforms: bool,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let report = asynchronous::run(materialize(args, settings))?;
    match settings.format {
        Format::Json => output::json(&report)?,
        Format::Text => output::data(&report.text())?,
    }
    Ok(Outcome::Done)
}

async fn materialize(args: &Args, settings: &Settings) -> Result<Report> {
    let begun = Instant::now();
    let containerd = Containerd::connect(&args.containerd, &args.namespace).await?;
    let (name, target) = find(&containerd, args).await?;
    let from = match &args.from {
        Some(from) => from.clone(),
        None => Location::Registry(name.parse().with_context(|| {
            format!("understand {name}: name with --from where it can be fetched")
        })?),
    };
    let sources = Sources::new(open::client(settings), &from).await?;
    let choice = match (args.all_platforms, args.platform.as_slice()) {
        (true, _) => Choice::All,
        (false, []) => Choice::Present,
        (false, platforms) => Choice::Platforms(platforms.to_vec()),
    };
    let reporter = Reporter::new("materialize", settings.progress);
    reporter.part(format!("look at {name}"));
    let leased = containerd.under_lease().await?;
    let tree = tree::follow(&leased, &sources, &target, &choice).await?;
    let kept = match tree.missing.as_slice() {
        [] => None,
        _ => kept_blobs(settings).await,
    };
    let brought = sources
        .bring(&leased, &tree.missing, kept, &reporter)
        .await?;
    // Of a run that fails it ends by itself, later: until then the next one goes on with what there is.
    leased.end_lease().await?;
    let names = (name.as_str(), args.namespace.as_str());
    Ok(Report::new(names, &target, &tree, brought, begun.elapsed()))
}

/// What this node's store has. It is a help: without it everything is fetched.
async fn kept_blobs(settings: &Settings) -> Option<KeptBlobs> {
    let layout = Layout::new(settings.root.clone());
    let opened = tokio::task::spawn_blocking(move || KeptBlobs::open(&layout)).await;
    match opened {
        Ok(Ok(kept)) => kept,
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "this node's store is not used");
            None
        }
        Err(_) => None,
    }
}

/// The image by the name that was typed, or by what that stands for.
async fn find(containerd: &Containerd, args: &Args) -> Result<(String, Descriptor)> {
    let full: Option<Reference> = args.image.parse().ok();
    let names = [Some(args.image.clone()), full.map(|full| full.to_string())];
    for name in names.into_iter().flatten() {
        if let Some(target) = containerd.image(&name).await? {
            return Ok((name, target));
        }
    }
    bail!(
        "find {}: containerd has no image of that name in the namespace {}",
        args.image,
        args.namespace
    );
}
