//! `draught daemon`: the keeper, the worker, and what is asked of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use draught_node::{
    Client, Layout, PlannerSettings, RegistrySettings, adopt, guard, keeper, worker,
};

use crate::args::Format;
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::{Size, Span};

/// Serve mounts: a keeper that holds what must outlive a crash, and a worker that does the work
///
/// Runs in the foreground. `draught mount` starts one in the background if none runs for --root.
/// SIGTERM and SIGINT stop it like --stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unmount everything and stop the daemon of --root; refused while a mount is in use
    #[arg(long, conflicts_with = "upgrade")]
    stop: bool,

    /// Let this program take over from the worker that runs; readers wait some milliseconds
    #[arg(long)]
    upgrade: bool,

    /// How long a read is tried for while its registry does not answer, before it fails
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        env = "DRAUGHT_READ_DEADLINE"
    )]
    read_deadline: Span,

    /// What the store may take on disk, for example 20GiB: beyond that, images that are not mounted are
    /// evicted, the one first that was used longest ago. 0: no limit
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "0",
        env = "DRAUGHT_CACHE_SIZE_MAX"
    )]
    cache_size_max: Size,

    /// Serve metrics for Prometheus here, for example 127.0.0.1:9464, at /metrics, and /healthz and /readyz for
    /// probes
    #[arg(long, value_name = "ADDRESS", env = "DRAUGHT_METRICS")]
    metrics: Option<SocketAddr>,

    /// Be containerd's remote snapshotter too, on this socket, for example /run/draught/snapshotter.sock
    #[arg(long, value_name = "SOCKET", env = "DRAUGHT_SNAPSHOTTER")]
    snapshotter: Option<PathBuf>,

    /// Stand between the kubelet and containerd's image service on this socket, and use the credentials that come with
    /// pulls: the kubelet is told of it with --image-service-endpoint
    #[arg(
        long,
        value_name = "SOCKET",
        env = "DRAUGHT_CRI_IMAGES",
        requires = "snapshotter"
    )]
    cri_images: Option<PathBuf>,

    /// The containerd that is asked about snapshots that were lost with the state directory
    #[arg(
        long,
        value_name = "SOCKET",
        env = "DRAUGHT_CONTAINERD",
        default_value = "/run/containerd/containerd.sock"
    )]
    containerd: PathBuf,

    #[command(flatten)]
    registries: Registries,

    /// Whether images share what they have in common; off is for measuring what sharing costs
    #[arg(long, hide = true, default_value = "on", env = "DRAUGHT_DEDUP")]
    dedup: Dedup,

    /// Be the worker of the keeper at the other end of the standard input
    #[arg(long, hide = true)]
    worker: bool,

    /// Be the guard of the keeper at the other end of the standard input
    #[arg(long, hide = true)]
    guard: bool,

    /// Be the keeper with what this descriptor says
    #[arg(long, hide = true, value_name = "FD")]
    adopt: Option<i32>,
}

/// Where hosts of registries are described unless somebody says where.
pub(crate) const HOSTS_DIRS: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";
/// Says where.
pub(crate) const HOSTS_DIRS_ENV: &str = "DRAUGHT_HOSTS_DIR";

/// How registries are spoken to, see docs/credentials.md.
#[derive(Debug, clap::Args)]
struct Registries {
    /// Directories with a hosts.toml or certificates for each registry, as containerd and docker have them
    #[arg(
        long,
        value_name = "DIR",
        env = HOSTS_DIRS_ENV,
        value_delimiter = ':',
        default_value = HOSTS_DIRS
    )]
    hosts_dir: Vec<PathBuf>,

    /// The kubelet's configuration of credential-provider plugins (CredentialProviderConfig)
    #[arg(
        long,
        value_name = "FILE",
        env = "DRAUGHT_IMAGE_CREDENTIAL_PROVIDER_CONFIG",
        requires = "image_credential_provider_bin_dir"
    )]
    image_credential_provider_config: Option<PathBuf>,

    /// The directory with those plugins
    #[arg(
        long,
        value_name = "DIR",
        env = "DRAUGHT_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR",
        requires = "image_credential_provider_config"
    )]
    image_credential_provider_bin_dir: Option<PathBuf>,

    /// Pull secrets of Kubernetes: files, mounted secrets, or directories of mounted secrets
    #[arg(
        long,
        value_name = "PATH",
        env = "DRAUGHT_PULL_SECRETS",
        value_delimiter = ':'
    )]
    pull_secrets: Vec<PathBuf>,

    /// Files of credentials as docker and podman have them, besides those of the daemon's user
    #[arg(
        long,
        value_name = "FILE",
        env = "DRAUGHT_CREDENTIAL_FILES",
        value_delimiter = ':'
    )]
    credential_file: Vec<PathBuf>,
}

impl Registries {
    fn settings(&self) -> RegistrySettings {
        RegistrySettings {
            hosts_dirs: self.hosts_dir.clone(),
            provider_config: self.image_credential_provider_config.clone(),
            provider_bin_dir: self.image_credential_provider_bin_dir.clone(),
            pull_secrets: self.pull_secrets.clone(),
            credential_files: self.credential_file.clone(),
        }
    }

    /// The same as a worker's environment; paths only.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let lists = [
            (HOSTS_DIRS_ENV, &self.hosts_dir),
            ("DRAUGHT_PULL_SECRETS", &self.pull_secrets),
            ("DRAUGHT_CREDENTIAL_FILES", &self.credential_file),
        ];
        let config = self.image_credential_provider_config.as_ref();
        let bin_dir = self.image_credential_provider_bin_dir.as_ref();
        let single = [
            ("DRAUGHT_IMAGE_CREDENTIAL_PROVIDER_CONFIG", config),
            ("DRAUGHT_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR", bin_dir),
        ];
        let lists = lists.into_iter().filter(|(_, paths)| !paths.is_empty());
        let lists = lists.map(|(name, paths)| {
            let texts: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            (name, texts.join(":"))
        });
        let single = single.into_iter();
        let single =
            single.filter_map(|(name, path)| Some((name, path?.to_string_lossy().into_owned())));
        lists.chain(single).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Dedup {
    On,
    Off,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let layout = Layout::new(&settings.root);
    let client = Client::new(layout.clone());
    if args.stop {
        client.stop().context("stop the daemon")?;
    } else if args.upgrade {
        let executable = std::env::current_exe().context("find this program")?;
        let status = client.upgrade(&executable).context("replace the worker")?;
        output::say(&format!(
            "worker {} serves, version {}",
            status.worker_pid, status.version
        ));
    } else if args.worker {
        let planner = PlannerSettings {
            deadline_ms: args.read_deadline.millis(),
            ..PlannerSettings::default()
        };
        let settings = worker::Settings {
            planner,
            cache_bytes_max: Some(args.cache_size_max.0).filter(|bytes| *bytes > 0),
            metrics: args.metrics,
            deduplicate: args.dedup == Dedup::On,
            registries: args.registries.settings(),
        };
        let snapshotter = args.snapshotter.clone().map(|socket| worker::ServiceAt {
            sockets: [Some(socket), args.cri_images.clone()]
                .into_iter()
                .flatten()
                .collect(),
            start: draught_snapshotter::start(draught_snapshotter::Settings {
                containerd: Some(args.containerd.clone()),
            }),
        });
        worker::run(&layout, settings, snapshotter).context("serve as a worker")?;
    } else if args.guard {
        guard::run(&layout).context("guard the mounts")?;
    } else if let Some(will) = args.adopt {
        adopt(&layout, will, &environment(args, settings)).context("take over as the keeper")?;
    } else {
        keeper::run(&layout, &environment(args, settings)).context("serve as the keeper")?;
    }
    Ok(Outcome::Done)
}

/// What the keeper's workers are to know of this command line.
fn environment(args: &Args, settings: &Settings) -> Vec<(&'static str, String)> {
    let log_format = match settings.log_format {
        Format::Text => "text",
        Format::Json => "json",
    };
    let mut environment = vec![
        ("DRAUGHT_READ_DEADLINE", args.read_deadline.to_string()),
        ("DRAUGHT_CACHE_SIZE_MAX", args.cache_size_max.0.to_string()),
        ("DRAUGHT_LOG", settings.log.clone()),
        ("DRAUGHT_LOG_FORMAT", log_format.to_owned()),
    ];
    let metrics = args.metrics.map(|address| address.to_string());
    environment.extend(metrics.map(|address| ("DRAUGHT_METRICS", address)));
    // Another process may be elsewhere.
    let absolute = |path: &PathBuf| {
        let path = std::path::absolute(path).ok()?;
        path.into_os_string().into_string().ok()
    };
    let socket = args.snapshotter.as_ref().and_then(absolute);
    environment.extend(socket.map(|socket| ("DRAUGHT_SNAPSHOTTER", socket)));
    let socket = args.cri_images.as_ref().and_then(absolute);
    environment.extend(socket.map(|socket| ("DRAUGHT_CRI_IMAGES", socket)));
    environment.extend(absolute(&args.containerd).map(|socket| ("DRAUGHT_CONTAINERD", socket)));
    environment.extend(args.registries.environment());
    environment
}
