//! What the tests of this crate share.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use draught_digest::Digest;
use draught_oci::{
    Any, Descriptor, Document, ImageConfig, Location, Manifest, Platform, media_type,
};
use draught_source::{Client, Payload, Repository, Settings};

/// Settings for tests: the same, with shorter pauses.
pub(crate) fn settings() -> Settings {
    Settings {
        retry_delay: Duration::from_millis(1),
        ..Settings::default()
    }
}

/// A client with those settings.
pub(crate) fn client() -> Client {
    Client::new(settings())
}

/// The repository `name` of a registry.
pub(crate) async fn repository(client: &Client, addr: SocketAddr, name: &str) -> Repository {
    let location: Location = format!("{addr}/{name}:x").parse().unwrap();
    client.open(&location).await.unwrap().0
}

/// Bytes that compress badly and differ by seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(bytes)
    .collect()
}

/// Writes a blob and gives its descriptor.
pub(crate) async fn push(repository: &Repository, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::of(media_type, &bytes);
    repository
        .push_blob(&descriptor, &bytes.into(), &[])
        .await
        .unwrap();
    descriptor
}

/// Writes a small image and gives its manifest.
pub(crate) async fn push_image(
    repository: &Repository,
    tag: &str,
    layer: Vec<u8>,
) -> Document<Manifest> {
    let config = ImageConfig::new(Platform::host(), vec![Digest::sha256(&layer)]);
    let config = Document::write(config).into_bytes();
    let config = push(repository, media_type::CONFIG, config).await;
    let layer = push(repository, media_type::LAYER_TAR, layer).await;
    let manifest = Document::write(Manifest::new(config, vec![layer]));
    repository
        .put_manifest(Some(tag), &Any::Manifest(manifest.clone()))
        .await
        .unwrap();
    manifest
}

/// A request as a scripted server sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub method: String,
    /// With the query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A server that answers what it is told, byte for byte, and closes.
#[derive(Debug)]
pub(crate) struct Script {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Script {
    /// Answers every request with what `answer` makes of it.
    pub(crate) fn start(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_slow(Duration::ZERO, answer)
    }

    /// The same, with a pause after every 256 KiB of a request's body.
    pub(crate) fn start_slow(
        pause: Duration,
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answer = Arc::new(answer);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, answer) = (stream.unwrap(), answer.clone());
                // Ends with its connection; the client's end comes with the test's.
                drop(std::thread::spawn(move || {
                    converse(&stream, pause, &*answer)
                }));
            }
        });
        Self {
            addr,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn converse(
    mut stream: &TcpStream,
    pause: Duration,
    answer: &(dyn Fn(&Seen) -> Vec<u8> + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return;
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    for piece in body.chunks_mut(256 << 10) {
        if reader.read_exact(piece).is_err() {
            return;
        }
        std::thread::sleep(pause);
    }
    let seen = Seen {
        method,
        target,
        headers,
        body,
    };
    // The client may have had enough before the end.
    drop(stream.write_all(&answer(&seen)));
}

/// An answer with a length, after which the connection closes.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    let has_length = headers.iter().any(|(name, _)| *name == "content-length");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !has_length {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    head.push_str("connection: close\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// An error and all its causes, as a log shows them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause} {cause:?}").unwrap();
        source = cause.source();
    }
    text
}

/// A payload of these bytes.
pub(crate) fn payload(bytes: &[u8]) -> Payload {
    Payload::from(bytes.to_vec())
}
