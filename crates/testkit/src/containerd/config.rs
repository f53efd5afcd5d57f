//! What a containerd is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::Scratch;

/// Plugins that a scratch containerd does without: they want devices or services.
const DISABLED: &[&str] = &[
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// What runs pods; on only if it is asked for.
const CRI: &str = "io.containerd.grpc.v1.cri";

/// How a containerd is to be.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Snapshotters that it asks over gRPC.
    pub snapshotters: Vec<Proxy>,
    /// Whether it runs pods, and how.
    pub cri: Option<CriConfig>,
}

/// A snapshotter that containerd asks over gRPC.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Proxy {
    /// What it is called there.
    pub name: String,
    /// Its socket.
    pub socket: PathBuf,
    /// Facts that it is known by, such as `enable_remote_snapshot_annotations`; containerd 1.6 has no use
    /// for them.
    pub exports: BTreeMap<String, String>,
    /// What it can, such as `rebase`; likewise.
    pub capabilities: Vec<String>,
}

impl Proxy {
    /// A snapshotter without exports.
    #[must_use]
    pub fn new(name: &str, socket: &Path) -> Self {
        Self {
            name: name.to_owned(),
            socket: socket.to_owned(),
            exports: BTreeMap::new(),
            capabilities: Vec::new(),
        }
    }

    /// With one more export.
    #[must_use]
    pub fn export(mut self, name: &str, value: &str) -> Self {
        self.exports.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With one more capability.
    #[must_use]
    pub fn capability(mut self, name: &str) -> Self {
        self.capabilities.push(name.to_owned());
        self
    }
}

/// How pods are run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CriConfig {
    /// The snapshotter of their images.
    pub snapshotter: String,
    /// The image of what holds a pod's namespaces: any whose command never ends.
    pub sandbox_image: String,
    /// Whether the snapshotter is told which image a layer is of.
    pub annotations: bool,
}

impl CriConfig {
    /// Pods on a snapshotter, which is told all about the layers.
    #[must_use]
    pub fn new(snapshotter: &str, sandbox_image: &str) -> Self {
        Self {
            snapshotter: snapshotter.to_owned(),
            sandbox_image: sandbox_image.to_owned(),
            annotations: true,
        }
    }
}

impl Config {
    /// The file's content, for a containerd whose directories are in `scratch`.
    pub(super) fn text(&self, scratch: &Scratch, socket: &Path) -> String {
        let (root, state) = (scratch.dir("root"), scratch.dir("state"));
        let cri = self.cri.is_none().then_some(&CRI);
        let disabled: Vec<&&str> = DISABLED.iter().chain(cri).collect();
        let mut text = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = {disabled:?}\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{}.ttrpc\"\n",
            socket.display()
        );
        for proxy in &self.snapshotters {
            let Proxy {
                name,
                socket,
                exports,
                capabilities,
            } = proxy;
            write!(
                text,
                "[proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = {socket:?}\n"
            )
            .unwrap();
            if !capabilities.is_empty() {
                writeln!(text, "capabilities = {capabilities:?}").unwrap();
            }
            if !exports.is_empty() {
                writeln!(text, "[proxy_plugins.{name}.exports]").unwrap();
                for (key, value) in exports {
                    writeln!(text, "{key} = {value:?}").unwrap();
                }
            }
        }
        if let Some(cri) = &self.cri {
            cri.write(&mut text, scratch);
        }
        text
    }
}

impl CriConfig {
    fn write(&self, text: &mut String, scratch: &Scratch) {
        let Self {
            snapshotter,
            sandbox_image,
            annotations,
        } = self;
        // Nobody's plugins and nobody's registries. A root that is itself in a container may not make
        // processes less likely to be killed than itself is.
        let (plugins, networks) = (scratch.dir("cni/bin"), scratch.dir("cni/net.d"));
        let hosts = scratch.dir("certs.d");
        write!(
            text,
            "[plugins.{CRI:?}]\n\
             sandbox_image = {sandbox_image:?}\n\
             disable_apparmor = true\n\
             enable_selinux = false\n\
             restrict_oom_score_adj = true\n\
             stream_server_address = \"127.0.0.1\"\n\
             stream_server_port = \"0\"\n\
             [plugins.{CRI:?}.containerd]\n\
             snapshotter = {snapshotter:?}\n\
             disable_snapshot_annotations = {}\n\
             default_runtime_name = \"runc\"\n\
             [plugins.{CRI:?}.containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.{CRI:?}.cni]\n\
             bin_dir = {plugins:?}\n\
             conf_dir = {networks:?}\n\
             [plugins.{CRI:?}.registry]\n\
             config_path = {hosts:?}\n",
            !annotations
        )
        .unwrap();
    }
}
