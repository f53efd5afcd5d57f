//! The daemon and its sockets.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use draught_containerd::snapshots::StatSnapshotRequest;
use draught_containerd::snapshots::snapshots_client::SnapshotsClient;
use draught_containerd::tonic::Code;
use draught_containerd::{connect, in_namespace};
use draught_node::{Client, DaemonStatus, Layout};

use super::check::Check;
use crate::asynchronous;

/// How long an answer may take before nobody is there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// No snapshot is called so: one who answers says that it isn't there.
const NO_SNAPSHOT: &str = "draught-doctor-asks-whether-somebody-is-there";
/// And in no namespace that anybody uses.
const NAMESPACE: &str = "draught-doctor";

/// Who may do what with a socket that gives power over the machine.
const MODE: u32 = 0o600;

/// The daemon, when one runs.
pub(crate) fn status(root: &Path) -> Result<DaemonStatus, String> {
    let status = Client::new(Layout::new(root)).status();
    status.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

/// Whether it serves.
pub(crate) fn serves(root: &Path) -> Check {
    match status(root) {
        Ok(status) => Check::right("daemon", format!("worker {} serves", status.worker_pid)),
        Err(error) => Check::wrong("daemon", error, "start it: systemctl start draught"),
    }
}

pub(crate) fn checks(root: &Path, snapshotter: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    match status(root) {
        Err(_) => checks.push(serves(root)),
        Ok(status) => {
            let ours = env!("CARGO_PKG_VERSION");
            let (pid, version) = (status.worker_pid, &status.version);
            checks.push(if version == ours {
                Check::right("daemon", format!("worker {pid} serves, version {version}"))
            } else {
                Check::wrong(
                    "daemon",
                    format!("worker {pid} is of version {version}, this program of {ours}"),
                    "let this program take over: draught daemon --upgrade",
                )
            });
            checks.push(permissions("control socket", &Layout::new(root).socket()));
        }
    }
    checks.push(snapshotter_answers(snapshotter));
    if snapshotter.exists() {
        checks.push(permissions("snapshotter's permissions", snapshotter));
    }
    checks
}

/// Whether only its owner can use a socket.
fn permissions(what: &'static str, socket: &Path) -> Check {
    let metadata = match fs_err::metadata(socket) {
        Ok(metadata) => metadata,
        Err(error) => return Check::wrong(what, error.to_string(), "restart the daemon"),
    };
    let mode = metadata.permissions().mode() & 0o777;
    let found = format!(
        "{}, mode {mode:04o}, owner {}",
        socket.display(),
        metadata.uid()
    );
    if mode & !MODE == 0 {
        return Check::right(what, found);
    }
    let fix = format!(
        "whoever can use it can mount anything: chmod 0600 {}",
        socket.display()
    );
    Check::wrong(what, found, fix)
}

/// Whether somebody answers as a snapshotter there.
pub(crate) fn snapshotter_answers(socket: &Path) -> Check {
    let what = "snapshotter";
    let fix = "start the daemon with --snapshotter: `draught install` writes a unit that does";
    match asynchronous::block_on(async { Ok(ask(socket).await) }) {
        Ok(Ok(())) => Check::right(what, format!("{} answers", socket.display())),
        Ok(Err(error)) => Check::wrong(what, error, fix),
        Err(error) => Check::wrong(what, format!("{error:#}"), fix),
    }
}

/// Asks a snapshotter for a snapshot that isn't there.
pub(crate) async fn ask(socket: &Path) -> Result<(), String> {
    let asking = async {
        let channel = connect(socket).await;
        let channel = channel.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        let message = StatSnapshotRequest {
            key: NO_SNAPSHOT.to_owned(),
            ..StatSnapshotRequest::default()
        };
        let request = in_namespace(NAMESPACE, message);
        match SnapshotsClient::new(channel).stat(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status.message().to_owned()),
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}
