//! The server: a thread of its own, so that tests with and without an asynchronous runtime can use it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::keep::{Keep, Kept};

/// Who may do everything.
const ACCESS_KEY: &str = "AKIADRAUGHTTEST";
/// What must never be seen.
const SECRET_KEY: &str = "not+for/anybodys=eyes";
/// The only bucket.
const BUCKET: &str = "blobs";

/// An S3 server with one bucket.
#[derive(Debug)]
pub struct S3Server {
    addr: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    #[must_use]
    pub fn start() -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let keep = Keep::new(BUCKET, Arc::clone(&kept));
        let thread = std::thread::Builder::new()
            .name("s3-server".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(run(keep, &ready, stopped));
                runtime.shutdown_background();
            })
            .unwrap();
        Self {
            addr: started.recv().unwrap(),
            kept,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its bucket as a location, with a prefix, by way of `addr`: its own address, or a proxy's.
    #[must_use]
    pub fn location(addr: SocketAddr, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint=http://{addr}")
    }

    /// The name of its bucket.
    #[must_use]
    pub fn bucket() -> &'static str {
        BUCKET
    }

    /// What has to be in the environment of whoever uses it.
    #[must_use]
    pub fn environment() -> [(String, String); 2] {
        [
            ("AWS_ACCESS_KEY_ID".to_owned(), ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), SECRET_KEY.to_owned()),
        ]
    }

    /// The keys of all objects.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.kept.lock().objects.keys().cloned().collect()
    }

    /// The bytes of an object.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        kept.objects.get(key).map(|object| object.bytes.to_vec())
    }

    /// Puts an object there, or another in its place.
    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        self.kept.lock().put(key, bytes.into());
    }

    /// How many parts each upload has that is under way.
    #[must_use]
    pub fn uploads(&self) -> Vec<usize> {
        let kept = self.kept.lock();
        let uploads = kept.uploads.values();
        uploads.map(|upload| upload.parts.len()).collect()
    }

    /// Puts other bytes into the first part of every upload that is under way.
    pub fn spoil_uploads(&self) {
        for upload in self.kept.lock().uploads.values_mut() {
            if let Some(part) = upload.parts.values_mut().next() {
                *part = vec![0; part.len()].into();
            }
        }
    }

    /// How many parts and objects were written in all.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.kept.lock().writes
    }

    /// Whether uploads can be listed; they can, until told otherwise.
    pub fn lists_uploads(&self, can: bool) {
        self.kept.lock().hides_uploads = !can;
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only panics if a test's request made it, and then the test knows.
            drop(thread.join());
        }
    }
}

async fn run(keep: Keep, ready: &mpsc::Sender<SocketAddr>, mut stopped: oneshot::Receiver<()>) {
    let mut builder = S3ServiceBuilder::new(keep);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = builder.build();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    ready.send(listener.local_addr().unwrap()).unwrap();
    loop {
        let stream = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let service = service.clone();
        tokio::spawn(async move {
            let connection =
                hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            // A client that goes away in the middle is what some tests are about.
            drop(
                connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}
