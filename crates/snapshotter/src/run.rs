//! The service in the daemon.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use draught_containerd::snapshots::snapshots_server::SnapshotsServer;
use draught_containerd::tonic::transport::Server as Transport;
use draught_node::{LayerStatus, Node, Service, Start};
use futures_util::stream;
use tokio::net::UnixListener;

use crate::core::Core;
use crate::record::Kind;
use crate::server::Server;

/// How often what removed snapshots left is looked after: what was in use may not be any more.
const CLEAN_EVERY: Duration = Duration::from_secs(10);
/// The pause after a connection that could not be accepted: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a snapshotter is told on the daemon's command line.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The socket of containerd, which is asked about snapshots that were lost; none: they stay lost. Kubernetes'
    /// image service is passed on to it too.
    pub containerd: Option<PathBuf>,
}

/// What starts the snapshotter on its first socket; on a second one, if there is one, it stands between the kubelet and
/// containerd's image service.
#[must_use]
pub fn start(settings: Settings) -> Start {
    Box::new(move |node, listeners| Box::pin(run(node, listeners, settings)))
}

async fn run(
    node: Node,
    listeners: Vec<OwnedFd>,
    settings: Settings,
) -> io::Result<Arc<dyn Service>> {
    let mut listeners = listeners.into_iter();
    let listener = listeners
        .next()
        .ok_or_else(|| io::Error::other("no socket was given"))?;
    if let (Some(images), Some(containerd)) = (listeners.next(), settings.containerd.clone()) {
        let images = tokio_listener(images)?;
        let keychain = Arc::clone(node.keychain());
        drop(tokio::spawn(async move {
            if let Err(error) = crate::cri::serve(images, containerd, keychain).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the image service is not passed on any more");
            }
        }));
    }
    let opened = crate::core::off_runtime(move || Core::open(&node, settings)).await;
    let core = Arc::new(opened.and_then(|core| core).map_err(io::Error::other)?);
    let listener = tokio_listener(listener)?;
    drop(tokio::spawn(serve(Arc::clone(&core), listener)));
    drop(tokio::spawn(keep_clean(Arc::clone(&core))));
    Ok(Arc::new(Running(core)))
}

fn tokio_listener(listener: OwnedFd) -> io::Result<UnixListener> {
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn serve(core: Arc<Core>, listener: UnixListener) {
    let incoming = stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok::<_, io::Error>(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a client of the snapshotter");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    let service = SnapshotsServer::new(Server(core));
    let served = Transport::builder()
        .add_service(service)
        .serve_with_incoming(incoming);
    if let Err(error) = served.await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the snapshotter ended"
        );
    }
}

async fn keep_clean(core: Arc<Core>) {
    loop {
        core.clean().await;
        tokio::time::sleep(CLEAN_EVERY).await;
    }
}

#[derive(Debug)]
struct Running(Arc<Core>);

impl Service for Running {
    fn layers(&self) -> Vec<LayerStatus> {
        let records = self.0.state.look();
        let status = |(name, record): (&String, &crate::record::Record)| {
            let (reference, digest, why) = match (&record.lazy, &record.eager) {
                (Some(lazy), _) => (lazy.reference.clone(), Some(lazy.blob.to_string()), None),
                (None, Some(eager)) => {
                    let why = Some(eager.why.clone());
                    (eager.reference.clone(), eager.blob.clone(), why)
                }
                (None, None) => return None,
            };
            Some(LayerStatus {
                reference,
                digest,
                snapshot: name.clone(),
                lazy: record.lazy.is_some(),
                why,
            })
        };
        records.iter().filter_map(status).collect()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let (served, pulled) = self.0.counts.now();
        let records = self.0.state.look();
        let count = |kind: Kind| records.iter().filter(|(_, it)| it.kind == kind).count();
        let name = "draught_layers_total";
        let head = |name: &str, help: &str, kind: &str| {
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
        };
        text.push_str(&head(
            name,
            "Layers that clients asked for, and what became of them.",
            "counter",
        ));
        let snapshots = "draught_snapshots";
        // Writing to a string does not fail.
        let _written = writeln!(text, "{name}{{served=\"lazily\"}} {served}");
        let _written = writeln!(text, "{name}{{served=\"by the client\"}} {pulled}");
        text.push_str(&head(snapshots, "Snapshots that there are.", "gauge"));
        for (label, kind) in [
            ("active", Kind::Active),
            ("view", Kind::View),
            ("committed", Kind::Committed),
        ] {
            let _written = writeln!(text, "{snapshots}{{kind=\"{label}\"}} {}", count(kind));
        }
        text
    }
}
