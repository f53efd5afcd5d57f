//! The model behind a socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use draught_containerd::snapshots::snapshots_server::{Snapshots, SnapshotsServer};
use draught_containerd::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Kind, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use draught_containerd::tonic::transport::Server;
use draught_containerd::tonic::{Request, Response, Status, async_trait};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;

use super::state::{Fault, State};
use crate::Scratch;
use crate::background::Background;

/// How a model is to be.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Layers that are lazy, by the digest that labels name.
    pub(crate) lazy: BTreeMap<String, Vec<u8>>,
    /// Whether it names lazy snapshots itself.
    pub(crate) own_names: bool,
    /// What is wrong with it.
    pub(crate) fault: Option<Fault>,
}

/// A model that is served.
#[derive(Debug)]
pub(crate) struct Serving {
    _background: Background,
    socket: PathBuf,
    _scratch: Scratch,
}

impl Serving {
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Model {
    pub(crate) fn serve(self) -> Serving {
        let scratch = Scratch::new();
        let socket = scratch.join("model.sock");
        let state = State::new(&scratch.dir("root"), self.lazy, self.own_names, self.fault);
        let background = Background::start("model");
        let path = socket.clone();
        let listener = background.wait(async move { tokio::net::UnixListener::bind(path) });
        let connections = stream::unfold(listener.unwrap(), |listener| async {
            let connection = listener.accept().await.map(|(stream, _)| stream);
            Some((connection, listener))
        });
        background.spawn(async move {
            let service = SnapshotsServer::new(Service(Mutex::new(state)));
            let server = Server::builder().add_service(service);
            // It ends with the test.
            drop(server.serve_with_incoming(connections).await);
        });
        Serving {
            _background: background,
            socket,
            _scratch: scratch,
        }
    }
}

#[derive(Debug)]
struct Service(Mutex<State>);

#[async_trait]
impl Snapshots for Service {
    type ListStream = BoxStream<'static, Result<ListSnapshotsResponse, Status>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let it = request.into_inner();
        let labels = it.labels.into_iter().collect();
        let mounts = self
            .0
            .lock()
            .make(Kind::Active, &it.key, &it.parent, labels)?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let it = request.into_inner();
        let labels = it.labels.into_iter().collect();
        let mounts = self
            .0
            .lock()
            .make(Kind::View, &it.key, &it.parent, labels)?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let mounts = self.0.lock().mounts(&request.into_inner().key)?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let it = request.into_inner();
        let labels = it.labels.into_iter().collect();
        let mut state = self.0.lock();
        state.commit(&it.name, &it.key, labels, &it.parent)?;
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        self.0.lock().remove(&request.into_inner().key)?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let info = Some(self.0.lock().stat(&request.into_inner().key)?);
        Ok(Response::new(StatSnapshotResponse { info }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let it = request.into_inner();
        let mask = it.update_mask.unwrap_or_default().paths;
        let info = self.0.lock().update(it.info.unwrap_or_default(), &mask)?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(info) }))
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        const PIECE: usize = 3;
        let all = self.0.lock().list(&request.into_inner().filters)?;
        let pieces: Vec<_> = all
            .chunks(PIECE)
            .map(|info| {
                Ok(ListSnapshotsResponse {
                    info: info.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(stream::iter(pieces).boxed()))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let usage = self.0.lock().usage(&request.into_inner().key)?;
        Ok(Response::new(usage))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}
