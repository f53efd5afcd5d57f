//! `draught mount`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use draught_node::{Client, Layout, MountRequest, MountStatus, Origin};
use draught_oci::Location;
use draught_source::{BackendLocation, CredentialFiles};

use crate::args::Format;
use crate::open;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::Size;

/// Mount an image; its files are fetched when they are read
///
/// Starts a daemon for --root if none runs. What was fetched before, by any mount, is not fetched again.
/// Credentials are looked up in docker's and podman's files of the user who calls this; only the paths of
/// these files are remembered.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  draught mount registry.example.com/app:v1 /mnt/app
  draught mount 127.0.0.1:5000/app@sha256:… /mnt/app")]
pub(crate) struct Args {
    /// The image: HOST/REPO:TAG, HOST/REPO@sha256:…, or oci:DIR[:TAG]
    #[arg(value_name = "REF")]
    reference: Location,

    /// Where: an existing directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The place that has the image's blobs, where its manifest lists none: s3://BUCKET[/PREFIX][?region=…&
    /// endpoint=…], oss://BUCKET[/PREFIX]?endpoint=… or dir:PATH. The daemon's environment has the credentials
    #[arg(long, value_name = "PLACE")]
    blob_backend: Option<BackendLocation>,

    /// How reads reach the daemon
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    transport: Transport,

    /// What is fetched before anybody reads it: known (what this image, or the one before it, is known to
    /// need at its start), or all (that first, then everything else in the background)
    #[arg(long, value_enum, default_value_t = Prefetch::Known, hide_possible_values = true)]
    prefetch: Prefetch,
}

/// What is fetched before anybody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Prefetch {
    /// What a start is known to touch
    Known,
    /// Everything
    All,
}

/// The ways in which the kernel can ask for what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// The best that this machine has; `draught probe` says which and why
    Auto,
    /// Kernel EROFS and fanotify pre-content events
    Fanotify,
    /// Kernel EROFS over files that FUSE exports: where there are no pre-content events
    Fileio,
    /// Everything through FUSE: for ordinary users
    Fuse,
}

impl Transport {
    fn wanted(self) -> Option<draught_node::Transport> {
        match self {
            Self::Auto => None,
            Self::Fanotify => Some(draught_node::Transport::Fanotify),
            Self::Fileio => Some(draught_node::Transport::Fileio),
            Self::Fuse => Some(draught_node::Transport::Fuse),
        }
    }
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let dir = fs_err::canonicalize(&args.dir).context("find the directory to mount on")?;
    let mut origin = origin(&args.reference, settings)?;
    let backend = args.blob_backend.as_ref().map(open::absolute).transpose()?;
    origin.blob_backend = backend.map(|backend| backend.to_string());
    let request = MountRequest {
        origin,
        dir: dir.clone(),
        prefetch_all: args.prefetch == Prefetch::All,
        transport: args.transport.wanted(),
    };
    let status = mount(settings, request)
        .with_context(|| format!("mount {} on {}", args.reference, dir.display()))?;
    match settings.format {
        Format::Json => output::json(&status)?,
        Format::Text => output::line(&format!(
            "{} on {} by {}: {} of {} present",
            status.reference,
            status.dir.display(),
            status.transport,
            Size(status.bytes_present),
            Size(status.bytes_total),
        ))?,
    }
    Ok(Outcome::Done)
}

/// Where an image comes from, as the daemon is told it.
pub(crate) fn origin(reference: &Location, settings: &Settings) -> Result<Origin> {
    let reference = match reference {
        // The daemon has another working directory.
        Location::OciLayout { dir, selector } => {
            let dir = fs_err::canonicalize(dir).context("find the OCI layout")?;
            Location::OciLayout {
                dir,
                selector: selector.clone(),
            }
        }
        Location::Registry(_) => reference.clone(),
        Location::DockerArchive { .. } | Location::Directory { .. } => bail!(
            "mount {reference}: only images in a registry or an OCI layout can be mounted; convert it first"
        ),
    };
    Ok(Origin {
        reference: reference.to_string(),
        plain_http: settings.plain_http.clone(),
        credentials: CredentialFiles::from_env().files().to_vec(),
        blob_backend: None,
    })
}

/// Mounts through the daemon, which is started if none runs.
pub(crate) fn mount(settings: &Settings, request: MountRequest) -> Result<MountStatus> {
    let client = Client::new(Layout::new(&settings.root));
    if !client.is_running()? {
        let ability = draught_node::probe(&settings.root);
        if let Some(missing) = ability.missing() {
            bail!("{missing}");
        }
    }
    let executable = std::env::current_exe().context("find this program")?;
    client.ensure_running(&executable)?;
    Ok(client.mount(request)?)
}
