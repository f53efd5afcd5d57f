//! A client that waits for each answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_containerd::snapshots::snapshots_client::SnapshotsClient;
use draught_containerd::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest,
    UsageRequest, UsageResponse, ViewSnapshotRequest,
};
use draught_containerd::tonic::metadata::MetadataValue;
use draught_containerd::tonic::transport::Channel;
use draught_containerd::tonic::{Request, Response, Status};
use draught_containerd::types::Mount;
use draught_containerd::{connect, in_namespace, prost_types};

use crate::background::Background;

/// Names a lease of a request; there may be several.
const LEASE_HEADER: &str = "containerd-lease";

/// The largest message: a list of ten thousand snapshots with the labels of lazy layers has some.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Labels of a snapshot.
pub type Labels = BTreeMap<String, String>;

/// A snapshots service, and as whom it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Its socket: a snapshotter's own, or containerd's.
    pub socket: PathBuf,
    /// Which snapshotter is meant; one that has a socket of its own does not look at it.
    pub snapshotter: String,
    /// The namespace, if requests are in one.
    pub namespace: Option<String>,
    /// Leases that hold what is made, so that containerd does not collect it meanwhile.
    pub leases: Vec<String>,
}

impl Target {
    /// The service at `socket`, without a lease.
    #[must_use]
    pub fn new(socket: &Path, snapshotter: &str, namespace: &str) -> Self {
        Self {
            socket: socket.to_owned(),
            snapshotter: snapshotter.to_owned(),
            namespace: Some(namespace.to_owned()),
            leases: Vec::new(),
        }
    }

    /// The same with one more lease, as [`crate::Containerd::lease`] makes them.
    #[must_use]
    pub fn leased(mut self, lease: &str) -> Self {
        self.leases.push(lease.to_owned());
        self
    }
}

/// A client of a snapshots service. Its calls wait for the answer; clones share one connection.
#[derive(Debug, Clone)]
pub struct Snapshots {
    target: Target,
    channel: Channel,
    background: Arc<Background>,
}

impl Snapshots {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    pub fn connect(target: &Target) -> anyhow::Result<Self> {
        let background = Background::start("snapshots");
        let socket = target.socket.clone();
        let channel = background.wait(async move { connect(&socket).await })?;
        Ok(Self {
            target: target.clone(),
            channel,
            background: Arc::new(background),
        })
    }

    /// The same connection with other metadata: a namespace and leases.
    #[must_use]
    pub fn with(&self, namespace: Option<&str>, leases: &[String]) -> Self {
        let mut other = self.clone();
        other.target.namespace = namespace.map(str::to_owned);
        other.target.leases = leases.to_vec();
        other
    }

    /// As whom it asks.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = match &self.target.namespace {
            Some(namespace) => in_namespace(namespace, message),
            None => Request::new(message),
        };
        for lease in &self.target.leases {
            let value = MetadataValue::try_from(lease.as_str()).unwrap();
            request.metadata_mut().append(LEASE_HEADER, value);
        }
        request
    }

    fn call<Q, A, F>(
        &self,
        message: Q,
        run: impl FnOnce(SnapshotsClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        A: Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let client =
            SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let future = run(client, self.request(message));
        self.background.wait(future).map(Response::into_inner)
    }

    /// A snapshot to write into.
    ///
    /// # Errors
    ///
    /// What the service answers, as of all calls.
    pub fn prepare(&self, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>, Status> {
        let message = PrepareSnapshotRequest {
            snapshotter: self.target.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.clone().into_iter().collect(),
        };
        let answer = self.call(message, |mut client, request| async move {
            client.prepare(request).await
        });
        answer.map(|answer| answer.mounts)
    }

    /// A snapshot to read only.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn view(&self, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>, Status> {
        let message = ViewSnapshotRequest {
            snapshotter: self.target.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.clone().into_iter().collect(),
        };
        let answer = self.call(message, |mut client, request| async move {
            client.view(request).await
        });
        answer.map(|answer| answer.mounts)
    }

    /// How a snapshot is mounted.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let message = MountsRequest {
            snapshotter: self.target.snapshotter.clone(),
            key: key.to_owned(),
        };
        let answer = self.call(message, |mut client, request| async move {
            client.mounts(request).await
        });
        answer.map(|answer| answer.mounts)
    }

    /// Commits; `parent` is for snapshots that were prepared without the one that they have.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn commit(
        &self,
        name: &str,
        key: &str,
        labels: &Labels,
        parent: &str,
    ) -> Result<(), Status> {
        let message = CommitSnapshotRequest {
            snapshotter: self.target.snapshotter.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: labels.clone().into_iter().collect(),
            parent: parent.to_owned(),
        };
        self.call(message, |mut client, request| async move {
            client.commit(request).await
        })
    }

    /// Removes.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn remove(&self, key: &str) -> Result<(), Status> {
        let message = RemoveSnapshotRequest {
            snapshotter: self.target.snapshotter.clone(),
            key: key.to_owned(),
        };
        self.call(message, |mut client, request| async move {
            client.remove(request).await
        })
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    ///
    /// What the service answers, or an internal error if it answers with nothing.
    pub fn stat(&self, key: &str) -> Result<Info, Status> {
        let message = StatSnapshotRequest {
            snapshotter: self.target.snapshotter.clone(),
            key: key.to_owned(),
        };
        let answer = self.call(message, |mut client, request| async move {
            client.stat(request).await
        })?;
        answer.info.ok_or_else(|| Status::internal("no info"))
    }

    /// Changes labels; without `mask` all of them.
    ///
    /// # Errors
    ///
    /// What the service answers, or an internal error if it answers with nothing.
    pub fn update(&self, info: Info, mask: &[String]) -> Result<Info, Status> {
        let mask = prost_types::FieldMask {
            paths: mask.to_vec(),
        };
        let message = UpdateSnapshotRequest {
            snapshotter: self.target.snapshotter.clone(),
            info: Some(info),
            update_mask: (!mask.paths.is_empty()).then_some(mask),
        };
        let answer = self.call(message, |mut client, request| async move {
            client.update(request).await
        })?;
        answer.info.ok_or_else(|| Status::internal("no info"))
    }

    /// All snapshots that any of the filters matches; without filters all.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Info>, Status> {
        let message = ListSnapshotsRequest {
            snapshotter: self.target.snapshotter.clone(),
            filters: filters.to_vec(),
        };
        self.call(message, |mut client, request| async move {
            let mut stream = client.list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(piece) = stream.message().await? {
                all.extend(piece.info);
            }
            Ok(Response::new(all))
        })
    }

    /// What a snapshot takes on disk.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn usage(&self, key: &str) -> Result<UsageResponse, Status> {
        let message = UsageRequest {
            snapshotter: self.target.snapshotter.clone(),
            key: key.to_owned(),
        };
        self.call(message, |mut client, request| async move {
            client.usage(request).await
        })
    }

    /// Frees what removed snapshots have left.
    ///
    /// # Errors
    ///
    /// What the service answers.
    pub fn cleanup(&self) -> Result<(), Status> {
        let message = CleanupRequest {
            snapshotter: self.target.snapshotter.clone(),
        };
        self.call(message, |mut client, request| async move {
            client.cleanup(request).await
        })
    }
}
