//! The image service that is passed on: as it came, to a server of our own that tells what it saw, and to containerd.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use draught_containerd::cri::{AuthConfig, ImageSpec, PullImageRequest, PullImageResponse};
use draught_containerd::prost::Message as _;
use draught_oci::{
    Any, Descriptor, Document, ImageConfig, Location, Manifest, Platform, Selector, media_type,
};
use draught_snapshotter::cri;
use draught_source::{Client, Credentials, Keychain, Settings};
use draught_testkit::fault_proxy::Auth;
use draught_testkit::{Process, Scratch, TestRegistry, need};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const PASSWORD: &str = "sesame";

/// How long something that happens at once is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

type Body = BoxBody<Bytes, Infallible>;
type Frames = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// A body that comes as it is sent.
fn stream() -> (Frames, Body) {
    let (sender, mut receiver) = mpsc::channel(16);
    let frames = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, BoxBody::new(StreamBody::new(frames)))
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    BoxBody::new(Full::new(bytes.into()))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

fn trailers(status: &'static str, message: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers.insert("x-detail-bin", HeaderValue::from_static("AAEC"));
    Frame::trailers(trailers)
}

/// Sends one request over a connection of its own.
async fn call(socket: &Path, path: &str, body: Body) -> Response<Incoming> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let exec = TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(exec, TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    drop(tokio::spawn(connection));
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "20S")
        .header("user-agent", "grpc-go/1.60")
        .header("x-some-bin", "AAEC")
        .body(body)
        .unwrap();
    sender.send_request(request).await.unwrap()
}

/// A whole answer: its status, what is said of it, and its messages.
async fn whole_answer(response: Response<Incoming>) -> (String, String, Bytes) {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or(head.headers);
    let text = |name: &str| {
        let value = trailers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let (status, message) = (text("grpc-status"), text("grpc-message"));
    (status, message, collected.to_bytes())
}

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// A server that notes what comes. It echoes streams frame by frame, ends a pull of `bad` with an error and everything
/// else well.
async fn upstream(listener: UnixListener, seen: Seen) {
    // Connections end with this.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let seen = Arc::clone(&seen);
        let service = hyper::service::service_fn(move |request| {
            let seen = Arc::clone(&seen);
            async move { Ok::<_, Infallible>(answer(&seen, request).await) }
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(served);
    }
}

async fn answer(seen: &Seen, request: Request<Incoming>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let (frames, answer) = stream();
    let path = head.uri.path().to_owned();
    if path.ends_with("Echo") {
        drop(tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if frames.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            frames.send(Ok(trailers("0", ""))).await.unwrap();
        }));
        return Response::new(answer);
    }
    let bytes = body.collect().await.unwrap().to_bytes();
    let is_bad = bytes.windows(3).any(|part| part == b"bad");
    seen.lock().push((path, head.headers, bytes));
    if !is_bad {
        let message = Frame::data(framed(b"\x0a\x02ok").into());
        frames.send(Ok(message)).await.unwrap();
    }
    let end = if is_bad {
        trailers("16", "no%20entry")
    } else {
        trailers("0", "")
    };
    frames.send(Ok(end)).await.unwrap();
    let mut response = Response::new(answer);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("x-head", HeaderValue::from_static("here"));
    response
}

struct Scene {
    _scratch: Scratch,
    socket: PathBuf,
    upstream: PathBuf,
    keychain: Arc<Keychain>,
}

/// The proxy in front of whatever listens at `upstream`.
fn scene() -> Scene {
    let scratch = Scratch::new();
    let (socket, upstream) = (scratch.join("proxy.sock"), scratch.join("upstream.sock"));
    let keychain = Arc::new(Keychain::new());
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = cri::serve(listener, upstream.clone(), Arc::clone(&keychain));
    drop(tokio::spawn(serving));
    Scene {
        _scratch: scratch,
        socket,
        upstream,
        keychain,
    }
}

fn pull(image: &str, password: &str) -> Vec<u8> {
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: image.to_owned(),
        }),
        auth: Some(AuthConfig {
            username: "me".to_owned(),
            password: password.to_owned(),
            ..AuthConfig::default()
        }),
    };
    framed(&request.encode_to_vec())
}

#[tokio::test]
async fn calls_arrive_as_they_were_made_and_answers_as_they_were_given() {
    let scene = scene();
    let seen = Seen::default();
    let listener = UnixListener::bind(&scene.upstream).unwrap();
    drop(tokio::spawn(upstream(listener, Arc::clone(&seen))));
    // A field that nobody knows, at the end of a pull.
    let mut bytes = pull("r.example/good:1", PASSWORD);
    bytes.extend([0xfa, 0x3f, 1, b'x']);
    let length = u32::try_from(bytes.len() - 5).unwrap();
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    let old = "/runtime.v1alpha2.ImageService/PullImage";
    let unknown = "/runtime.v1.RuntimeService/NobodyKnows";
    for (path, body) in [
        (PULL, bytes),
        (old, pull("r.example/old:1", "p")),
        (unknown, b"anything".to_vec()),
    ] {
        let response = call(&scene.socket, path, whole(body.clone())).await;
        assert_eq!(response.headers()["x-head"], "here");
        let (status, _, answer) = whole_answer(response).await;
        assert_eq!(status, "0");
        assert_eq!(answer, framed(b"\x0a\x02ok"));
        let (got_path, headers, got) = seen.lock().pop().unwrap();
        assert_eq!((got_path.as_str(), &got[..]), (path, &body[..]));
        for (name, value) in [
            ("grpc-timeout", "20S"),
            ("user-agent", "grpc-go/1.60"),
            ("te", "trailers"),
            ("x-some-bin", "AAEC"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
    }
    assert_eq!(scene.keychain.len(), 2);
}

#[tokio::test]
async fn errors_come_as_they_are_and_nothing_is_kept_of_a_pull_that_failed() {
    let scene = scene();
    let listener = UnixListener::bind(&scene.upstream).unwrap();
    drop(tokio::spawn(upstream(listener, Seen::default())));
    let bad = whole(pull("r.example/bad:1", PASSWORD));
    let response = call(&scene.socket, PULL, bad).await;
    let (_, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "16");
    assert_eq!(trailers["grpc-message"], "no%20entry");
    assert_eq!(trailers["x-detail-bin"], "AAEC");
    assert!(scene.keychain.is_empty());
}

#[tokio::test]
async fn streams_flow_both_ways_while_they_are_open() {
    let scene = scene();
    let listener = UnixListener::bind(&scene.upstream).unwrap();
    drop(tokio::spawn(upstream(listener, Seen::default())));
    let (frames, body) = stream();
    let response = call(&scene.socket, "/any.Service/Echo", body).await;
    let mut body = response.into_body();
    for round in 0..3_u8 {
        let frame = Frame::data(vec![round; 5].into());
        frames.send(Ok(frame)).await.unwrap();
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let frame = frame.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), vec![round; 5]);
    }
    drop(frames);
    let end = body.frame().await.unwrap().unwrap();
    assert_eq!(end.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_caller_who_leaves_is_missed_on_the_other_side() {
    let scene = scene();
    let listener = UnixListener::bind(&scene.upstream).unwrap();
    let (told, mut ends) = mpsc::channel::<()>(1);
    drop(tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let told = told.clone();
            async move {
                let (frames, answer) = self::stream();
                drop(tokio::spawn(async move {
                    let _request = request;
                    frames.send(Ok(Frame::data("first".into()))).await.unwrap();
                    frames.closed().await;
                    told.send(()).await.unwrap();
                }));
                Ok::<_, Infallible>(Response::new(answer))
            }
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
    }));
    let mut response = call(&scene.socket, "/any.Service/Watch", whole("all")).await;
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    drop(response);
    let end = tokio::time::timeout(PATIENCE, ends.recv()).await;
    assert_eq!(end.unwrap(), Some(()));
}

#[tokio::test]
async fn containerd_may_come_late_and_come_back() {
    let scene = scene();
    let body = || whole(pull("r.example/a:1", PASSWORD));
    let answer = call(&scene.socket, PULL, body()).await;
    let (status, message, _) = whole_answer(answer).await;
    assert_eq!(status, "14", "{message}");
    assert!(scene.keychain.is_empty());
    for _ in 0..2 {
        let _may_be_none = fs_err::remove_file(&scene.upstream);
        let listener = UnixListener::bind(&scene.upstream).unwrap();
        let serving = tokio::spawn(upstream(listener, Seen::default()));
        let answer = call(&scene.socket, PULL, body()).await;
        let (status, message, _) = whole_answer(answer).await;
        assert_eq!(status, "0", "{message}");
        serving.abort();
    }
}

#[tokio::test]
async fn one_caller_does_not_notice_that_containerd_was_restarted() {
    let scene = scene();
    let stream = UnixStream::connect(&scene.socket).await.unwrap();
    let exec = TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(exec, TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    drop(tokio::spawn(connection));
    for round in 0..3 {
        let _may_be_none = fs_err::remove_file(&scene.upstream);
        let listener = UnixListener::bind(&scene.upstream).unwrap();
        let serving = tokio::spawn(upstream(listener, Seen::default()));
        let begun = Instant::now();
        loop {
            let request = Request::post("http://localhost/runtime.v1.RuntimeService/Version");
            let request = request.body(whole("x")).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let (status, message, _) = whole_answer(answer).await;
            if status == "0" {
                break;
            }
            // What was under way when it ended is lost, and says so.
            assert_eq!(status, "14", "{message}");
            assert!(begun.elapsed() < PATIENCE, "round {round}: {message}");
        }
        serving.abort();
    }
}

/// containerd with its own image service, and with snapshots that need no mounts.
fn containerd(scratch: &Scratch) -> Option<(Process, PathBuf)> {
    if !need::root() {
        return None;
    }
    let program = need::tool("containerd")?;
    let socket = scratch.join("containerd.sock");
    let disabled = [
        "io.containerd.internal.v1.opt",
        "io.containerd.tracing.processor.v1.otlp",
    ];
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = {disabled:?}\n\
         [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{}.ttrpc\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_port = \"0\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {:?}\nconf_dir = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n",
        scratch.dir("root"),
        scratch.dir("state"),
        socket.display(),
        scratch.dir("cni/bin"),
        scratch.dir("cni/conf"),
    );
    let config = scratch.join("config.toml");
    fs_err::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(&config);
    let mut process = Process::start(&mut command, &scratch.join("containerd.log")).unwrap();
    process.wait_for_socket(&socket).unwrap();
    Some((process, socket))
}

/// A registry that lets only `me` in, with an image of one empty layer.
async fn private_image() -> TestRegistry {
    let registry = draught_testkit::registry();
    let location: Location = registry.reference("team/app:x").parse().unwrap();
    let client = Client::new(Settings::default());
    let (place, _) = client.open(&location).await.unwrap();
    let layer = vec![0; 1024];
    let digest = draught_digest::Digest::sha256(&layer);
    let config = Document::write(ImageConfig::new(Platform::host(), vec![digest])).into_bytes();
    let mut descriptors = Vec::new();
    for (kind, bytes) in [(media_type::CONFIG, config), (media_type::LAYER_TAR, layer)] {
        let descriptor = Descriptor::of(kind, &bytes);
        place
            .push_blob(&descriptor, &bytes.into(), &[])
            .await
            .unwrap();
        descriptors.push(descriptor);
    }
    let layers = descriptors.split_off(1);
    let manifest = Manifest::new(descriptors.remove(0), layers);
    let manifest = Any::Manifest(Document::write(manifest));
    place.put_manifest(Some("x"), &manifest).await.unwrap();
    registry.proxy().require_tokens(Some(Auth {
        user: Some(("me".to_owned(), PASSWORD.to_owned())),
        lifetime: Duration::from_secs(300),
    }));
    registry
}

/// Waits for the plugin, which comes up a moment after the socket, and gives the version that it tells.
async fn version(socket: &Path, process: &Process) -> Bytes {
    let begun = Instant::now();
    loop {
        let path = "/runtime.v1.RuntimeService/Version";
        let answer = call(socket, path, whole(framed(b""))).await;
        let (status, message, answer) = whole_answer(answer).await;
        if status == "0" {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{message}: {}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_is_given_to_pull_with_lets_us_read_that_image_and_no_other() {
    let scratch = Scratch::new();
    let Some((process, upstream)) = containerd(&scratch) else {
        return;
    };
    let registry = private_image().await;
    let socket = scratch.join("proxy.sock");
    let keychain = Arc::new(Keychain::new());
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = cri::serve(listener, upstream.clone(), Arc::clone(&keychain));
    drop(tokio::spawn(serving));
    let version = version(&socket, &process).await;
    assert!(version.windows(10).any(|part| part == b"containerd"));
    let image = registry.reference("team/app:x");
    // What is wrong is said by containerd in its words, and not kept.
    for password in ["", "wrong"] {
        let mut said = Vec::new();
        for socket in [&socket, &upstream] {
            let answer = call(socket, PULL, whole(pull(&image, password))).await;
            said.push(whole_answer(answer).await);
        }
        assert_ne!(said[0].0, "0");
        assert_eq!(said[0].0, said[1].0);
        assert!(said[0].1.contains("team/app"), "{said:?}");
    }
    assert!(keychain.is_empty());
    let answer = call(&socket, PULL, whole(pull(&image, PASSWORD))).await;
    let (status, message, answer) = whole_answer(answer).await;
    assert_eq!(status, "0", "{message}: {}", process.log());
    let pulled = PullImageResponse::decode(answer.slice(5..)).unwrap();
    assert!(pulled.image_ref.starts_with("sha256:"), "{pulled:?}");
    let path = "/runtime.v1.ImageService/ListImages";
    let answer = call(&socket, path, whole(framed(b""))).await;
    let (status, _, listed) = whole_answer(answer).await;
    assert_eq!(status, "0");
    assert!(String::from_utf8_lossy(&listed).contains("team/app"));

    assert_eq!(keychain.len(), 1);
    let client = Client::new(Settings {
        credentials: Credentials::none().then_keychain(keychain),
        attempts: 1,
        ..Settings::default()
    });
    for (name, is_let_in) in [("team/app:x", true), ("team/other:x", false)] {
        let location: Location = registry.reference(name).parse().unwrap();
        let (place, _) = client.open(&location).await.unwrap();
        let found = place.manifest(&Selector::Tag("x".to_owned())).await;
        assert_eq!(found.is_ok(), is_let_in, "{name}: {found:?}");
    }
}
