//! The proxy's thread: accepts connections, and stops doing so when told.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc as commands;
use tokio::task::JoinSet;

use super::proxy::Shared;
use super::relay;
use crate::http::Connection;

/// How often, 10 ms apart, to try to get the port back: somebody's outgoing connection may hold it
/// for a moment.
const BIND_TRIES: u32 = 500;

/// What a test asks of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    GoDown,
    ComeUp,
    CutConnections,
    Stop,
}

type Queue = commands::UnboundedReceiver<(Command, mpsc::Sender<()>)>;

/// Runs until told to stop.
pub(super) fn run(shared: Arc<Shared>, queue: Queue, ready: &mpsc::Sender<SocketAddr>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(accept(shared, queue, ready));
    runtime.shutdown_background();
}

async fn accept(shared: Arc<Shared>, mut queue: Queue, ready: &mpsc::Sender<SocketAddr>) {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = first.local_addr().unwrap();
    // Where redirected requests go: another host, as far as HTTP clients are concerned.
    let store = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let store_addr = store.local_addr().unwrap();
    ready.send(addr).unwrap();
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = queue.recv() => {
                let Some((command, done)) = command else { return };
                match command {
                    Command::Stop => return,
                    Command::GoDown => listener = None,
                    Command::ComeUp if listener.is_none() => listener = Some(rebind(addr).await),
                    Command::ComeUp | Command::CutConnections => {}
                }
                if matches!(command, Command::GoDown | Command::CutConnections) {
                    connections.shutdown().await;
                }
                // Nobody waits any more if the test has panicked.
                done.send(()).ok();
            }
            accepted = accept_on(listener.as_ref()) => {
                if let Ok(stream) = accepted {
                    let place = relay::Place::Registry { store: store_addr };
                    connections.spawn(relay::serve(Arc::clone(&shared), Connection::new(stream), place));
                }
            }
            accepted = accept_on(listener.is_some().then_some(&store)) => {
                if let Ok(stream) = accepted {
                    let place = relay::Place::Store;
                    connections.spawn(relay::serve(Arc::clone(&shared), Connection::new(stream), place));
                }
            }
            // So that those which have ended do not pile up.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept_on(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let (stream, _) = listener.accept().await?;
    Ok(stream)
}

async fn rebind(addr: SocketAddr) -> TcpListener {
    for _ in 1..BIND_TRIES {
        if let Ok(listener) = TcpListener::bind(addr).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    TcpListener::bind(addr).await.unwrap()
}
