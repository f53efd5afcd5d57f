//! Registries to test against: ours and docker's, each behind a [`FaultProxy`].

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use draught_digest::Digest;
use tokio::runtime::Runtime;

use crate::fault_proxy::FaultProxy;
use crate::{Process, Scratch, need, net};

/// Threads of the embedded registry: it must not wait for the test that waits for it.
const THREADS: usize = 2;

/// How long the embedded registry's last requests may take when it is stopped.
const STOP_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Server {
    Embedded {
        runtime: Option<Runtime>,
        handle: Option<draught_registry::Handle>,
    },
    Docker {
        process: Process,
    },
}

/// A registry on a scratch directory, with a proxy in front, until it is dropped.
#[derive(Debug)]
pub struct TestRegistry {
    // Dropped in this order: no request may meet a directory that is gone.
    proxy: FaultProxy,
    server: Server,
    direct: SocketAddr,
    dir: PathBuf,
    scratch: Option<Scratch>,
}

/// The embedded registry, empty, behind a proxy.
///
/// # Panics
///
/// If it can't be started.
#[must_use]
pub fn registry() -> TestRegistry {
    let scratch = Scratch::new();
    let mut registry = registry_in(&scratch.dir("registry"));
    registry.scratch = Some(scratch);
    registry
}

/// The embedded registry on the directory `dir`, which outlives it, behind a proxy.
///
/// # Panics
///
/// If it can't be started.
#[must_use]
pub fn registry_in(dir: &Path) -> TestRegistry {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let direct = listener.local_addr().unwrap();
    TestRegistry {
        proxy: FaultProxy::start(direct),
        server: embedded(dir, listener),
        direct,
        dir: dir.to_owned(),
        scratch: None,
    }
}

fn embedded(dir: &Path, listener: TcpListener) -> Server {
    let registry = draught_registry::Registry::open(dir).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("registry")
        .enable_all()
        .build()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    // Entered, not blocked on: the caller may be on a runtime of its own.
    let entered = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let handle = draught_registry::serve(registry, listener).unwrap();
    drop(entered);
    Server::Embedded {
        runtime: Some(runtime),
        handle: Some(handle),
    }
}

/// Debian's docker-registry, empty, behind a proxy; skips if it is not installed.
///
/// # Panics
///
/// If it can't be started, or as [`need::skip`].
#[must_use]
pub fn docker_registry() -> Option<TestRegistry> {
    let program = need::tool("docker-registry")?;
    let scratch = Scratch::new();
    let dir = scratch.dir("registry");
    let (process, direct) = start_docker(&program, &scratch, &dir);
    Some(TestRegistry {
        proxy: FaultProxy::start(direct),
        server: Server::Docker { process },
        direct,
        dir,
        scratch: Some(scratch),
    })
}

fn start_docker(program: &Path, scratch: &Scratch, dir: &Path) -> (Process, SocketAddr) {
    // It can't bind port 0 and say which it got, so another test may be faster: try again then.
    let mut tries = 5;
    loop {
        let addr = net::free_addr();
        let config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": dir}, "delete": {"enabled": true}},
            "http": {"addr": addr.to_string(), "relativeurls": true},
        });
        // Every JSON document is a YAML document.
        let file = scratch.join("registry.yml");
        fs_err::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(&file);
        let mut process = Process::start(&mut command, &scratch.join("registry.log")).unwrap();
        let listens = || std::net::TcpStream::connect(addr).is_ok();
        match process.wait_until(net::START_MAX, listens) {
            Ok(()) => return (process, addr),
            Err(error) if tries == 0 => panic!("{error}"),
            Err(_) => tries -= 1,
        }
    }
}

impl TestRegistry {
    /// Where clients reach it, through the proxy.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    /// The proxy, which counts and injects faults.
    #[must_use]
    pub fn proxy(&self) -> &FaultProxy {
        &self.proxy
    }

    /// Where it is itself, so that what a test does for its own sake is not counted.
    #[must_use]
    pub fn direct(&self) -> SocketAddr {
        self.direct
    }

    /// `HOST:PORT/NAME` through the proxy, as image references begin.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.addr())
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that holds a blob, to be damaged by a test.
    #[must_use]
    pub fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let shard = hex.get(..2).unwrap_or_default();
        match self.server {
            Server::Embedded { .. } => self.dir.join("blobs/sha256").join(shard).join(&hex),
            Server::Docker { .. } => {
                let blobs = self.dir.join("docker/registry/v2/blobs/sha256");
                blobs.join(shard).join(&hex).join("data")
            }
        }
    }

    /// Pushes the image of an OCI layout as `NAME:latest`, past the proxy; gives its reference through it.
    /// Skips without `skopeo`.
    ///
    /// # Panics
    ///
    /// If it can't be pushed, or as [`need::skip`].
    #[must_use]
    #[track_caller]
    pub fn push_layout(&self, layout: &Path, name: &str) -> Option<String> {
        let mut copy = Command::new(need::tool("skopeo")?);
        copy.args(["copy", "--quiet", "--insecure-policy", "--preserve-digests"]);
        copy.arg("--dest-tls-verify=false");
        copy.arg(format!("oci:{}:latest", layout.display()));
        copy.arg(format!("docker://{}/{name}:latest", self.direct));
        crate::process::run(&mut copy);
        Some(format!("{}:latest", self.reference(name)))
    }

    /// Stops the server itself; the proxy answers 502 until [`restart`](Self::restart).
    ///
    /// To have connections refused, use [`FaultProxy::go_down`].
    ///
    /// # Panics
    ///
    /// If it can't be stopped.
    pub fn stop(&mut self) {
        match &mut self.server {
            Server::Embedded { runtime, handle } => {
                // Asks it to end; ending the runtime, on a thread that may wait, makes it so.
                drop(handle.take());
                if let Some(runtime) = runtime.take() {
                    let waiter = std::thread::spawn(|| runtime.shutdown_timeout(STOP_MAX));
                    waiter.join().unwrap();
                }
            }
            Server::Docker { process } => {
                process.stop().unwrap();
            }
        }
    }

    /// Starts the server again on its directory, after stopping it if it runs.
    ///
    /// # Panics
    ///
    /// If it can't be started; for docker's registry, which has no directory without its guard.
    pub fn restart(&mut self) {
        self.stop();
        match &mut self.server {
            Server::Embedded { .. } => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                self.direct = listener.local_addr().unwrap();
                self.server = embedded(&self.dir, listener);
            }
            Server::Docker { process } => {
                let program = need::find("docker-registry").unwrap();
                let scratch = self.scratch.as_ref().unwrap();
                (*process, self.direct) = start_docker(&program, scratch, &self.dir);
            }
        }
        self.proxy.move_upstream(self.direct);
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        if let Server::Embedded { runtime, handle } = &mut self.server {
            drop(handle.take());
            if let Some(runtime) = runtime.take() {
                // The test may be on a runtime of its own, which must not wait.
                runtime.shutdown_background();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Request;

    #[tokio::test]
    async fn a_registry_keeps_its_blobs_over_a_restart() {
        let bytes = b"some blob".to_vec();
        let digest = Digest::sha256(&bytes);
        let push = Request::new("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"))
            .body(bytes.clone());
        let pull = Request::new("GET", &format!("/v2/a/blobs/{digest}"));
        let mut registry = registry();
        assert_eq!(push.send(registry.addr()).await.unwrap().status(), 201);
        assert_eq!(fs_err::read(registry.blob_file(&digest)).unwrap(), bytes);
        registry.stop();
        assert_eq!(pull.send(registry.addr()).await.unwrap().status(), 502);
        registry.restart();
        assert_eq!(pull.send(registry.addr()).await.unwrap().body, bytes);
        assert_eq!(registry.proxy().counts().blobs().requests, 2);
    }

    #[tokio::test]
    async fn dockers_registry_starts() {
        let Some(mut registry) = docker_registry() else {
            return;
        };
        let request = Request::new("GET", "/v2/");
        assert_eq!(request.send(registry.addr()).await.unwrap().status(), 200);
        registry.restart();
        assert_eq!(request.send(registry.addr()).await.unwrap().status(), 200);
    }
}
