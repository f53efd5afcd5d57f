//! containerd's snapshots service, answered.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use draught_containerd::prost_types::Timestamp;
use draught_containerd::snapshots::snapshots_server::Snapshots;
use draught_containerd::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind as WireKind, ListSnapshotsRequest,
    ListSnapshotsResponse, MountsRequest, MountsResponse, PrepareSnapshotRequest,
    PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse,
    UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse,
    ViewSnapshotRequest, ViewSnapshotResponse,
};
use draught_containerd::tonic::{Request, Response, Status, async_trait};
use futures_util::Stream;
use futures_util::stream;
use tracing::Instrument as _;

use crate::core::Core;
use crate::filter::Filters;
use crate::record::{Kind, Labels, Record};

/// Snapshots in one message of a list: some 100 KB with the labels that they have.
const INFOS_PER_MESSAGE: usize = 100;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Server(pub(crate) Arc<Core>);

fn timestamp(nanos: u64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or(0),
    })
}

fn info(name: &str, record: &Record) -> Info {
    let kind = match record.kind {
        Kind::View => WireKind::View,
        Kind::Active => WireKind::Active,
        Kind::Committed => WireKind::Committed,
    };
    Info {
        name: name.to_owned(),
        parent: record.parent.clone(),
        kind: kind.into(),
        created_at: timestamp(record.created),
        updated_at: timestamp(record.updated),
        labels: record.labels.clone().into_iter().collect(),
    }
}

/// Labels as they are kept: containerd's own snapshotters forget those without a value.
fn labels(wire: HashMap<String, String>) -> Labels {
    let labels = wire.into_iter();
    labels.filter(|(_, value)| !value.is_empty()).collect()
}

/// Says in the log what was asked and could not be done.
fn refused(call: &'static str, key: &str, error: crate::Error) -> Status {
    match &error {
        crate::Error::Ready { .. } => {}
        crate::Error::NoSnapshot { .. } | crate::Error::Exists { .. } => {
            tracing::debug!(call, snapshot = key, %error, "refused");
        }
        _ => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(call, snapshot = key, error, "refused");
        }
    }
    error.into()
}

#[async_trait]
impl Snapshots for Server {
    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let it = request.into_inner();
        let span = tracing::info_span!("prepare", snapshot = it.key);
        let (key, core) = (it.key.clone(), Arc::clone(&self.0));
        // In a task of its own: a client that hangs up in the middle leaves nothing half done.
        let made = tokio::spawn(
            async move {
                core.prepare(Kind::Active, it.key, it.parent, labels(it.labels))
                    .await
            }
            .instrument(span),
        );
        let mounts = finished(made.await)?;
        let mounts = mounts.map_err(|error| refused("Prepare", &key, error))?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let it = request.into_inner();
        let (key, core) = (it.key.clone(), Arc::clone(&self.0));
        let made = tokio::spawn(async move {
            core.prepare(Kind::View, it.key, it.parent, labels(it.labels))
                .await
        });
        let mounts = finished(made.await)?;
        let mounts = mounts.map_err(|error| refused("View", &key, error))?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let key = request.into_inner().key;
        let mounts = self.0.mounts(&key).await;
        let mounts = mounts.map_err(|error| refused("Mounts", &key, error))?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let it = request.into_inner();
        let key = it.key.clone();
        let done = self
            .0
            .commit(it.name, it.key, labels(it.labels), it.parent)
            .await;
        done.map_err(|error| refused("Commit", &key, error))?;
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        let removed = self.0.remove(key.clone()).await;
        removed.map_err(|error| refused("Remove", &key, error))?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        self.0.ensure(&key).await;
        let info = {
            let records = self.0.state.look();
            records.need(&key).map(|record| info(&key, record))
        };
        let info = Some(info.map_err(|error| refused("Stat", &key, error))?);
        Ok(Response::new(StatSnapshotResponse { info }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let it = request.into_inner();
        let Some(wanted) = it.info else {
            return Err(Status::invalid_argument(
                "which snapshot to change is not said",
            ));
        };
        let paths = it.update_mask.map_or_else(Vec::new, |mask| mask.paths);
        let name = wanted.name;
        let updated = self
            .0
            .update(name.clone(), labels(wanted.labels), paths)
            .await;
        let record = updated.map_err(|error| refused("Update", &name, error))?;
        Ok(Response::new(UpdateSnapshotResponse {
            info: Some(info(&name, &record)),
        }))
    }

    type ListStream =
        Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send + 'static>>;

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = Filters::parse(&request.into_inner().filters)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let infos: Vec<Info> = {
            let records = self.0.state.look();
            let matching = records
                .iter()
                .filter(|(name, record)| filters.matches(name, record));
            matching.map(|(name, record)| info(name, record)).collect()
        };
        let mut messages = Vec::new();
        let mut infos = infos.into_iter().peekable();
        while infos.peek().is_some() {
            let info = infos.by_ref().take(INFOS_PER_MESSAGE).collect();
            messages.push(Ok(ListSnapshotsResponse { info }));
        }
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = self.0.usage(&key).await;
        let (bytes, inodes) = usage.map_err(|error| refused("Usage", &key, error))?;
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Ok(Response::new(UsageResponse {
            size: signed(bytes),
            inodes: signed(inodes),
        }))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        self.0.clean().await;
        Ok(Response::new(()))
    }
}

/// What a task gave.
fn finished<T>(done: Result<T, tokio::task::JoinError>) -> Result<T, Status> {
    done.map_err(|_| Status::internal("the daemon failed inside: its log says more"))
}
