//! The directory: what is left in it, and what it survives.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use draught_digest::Digest;
use draught_registry::{Handle, OpenError, Options, Registry, serve};
use draught_testkit::Scratch;
use draught_testkit::http::{Connection, Request, Response};
use tokio::net::{TcpListener, TcpStream};

async fn start(root: &Path, options: Options) -> Handle {
    let registry = Registry::open_with(root, options).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    serve(registry, listener).unwrap()
}

async fn push(addr: SocketAddr, content: &[u8]) -> Response {
    let digest = Digest::sha256(content);
    let request = Request::new("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"));
    request.body(content).send(addr).await.unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test]
async fn a_directory_is_served_by_one_registry_at_a_time() {
    let scratch = Scratch::new();
    let root = scratch.join("registry");
    let first = Registry::open(&root).unwrap();
    assert!(matches!(Registry::open(&root), Err(OpenError::Busy { .. })));
    drop(first);
    drop(Registry::open(&root).unwrap());
}

#[tokio::test]
async fn a_directory_of_something_else_is_not_touched() {
    let scratch = Scratch::new();
    let root = scratch.dir("home");
    fs_err::write(root.join("letter"), b"dear").unwrap();
    assert!(matches!(
        Registry::open(&root),
        Err(OpenError::Foreign { .. })
    ));
    assert_eq!(files(&root), [root.join("letter")]);
    let newer = scratch.dir("newer");
    fs_err::write(newer.join("format"), b"draught registry 2\n").unwrap();
    assert!(matches!(
        Registry::open(&newer),
        Err(OpenError::Foreign { .. })
    ));
}

#[tokio::test]
async fn what_an_upload_leaves_behind_is_cleared_at_the_next_start() {
    let scratch = Scratch::new();
    let root = scratch.join("registry");
    drop(Registry::open(&root).unwrap());
    let upload = root.join("uploads/left-by-a-crash");
    fs_err::write(&upload, b"half a blob").unwrap();
    let digest = Digest::sha256(b"never linked");
    let orphan = root
        .join("blobs/sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex());
    fs_err::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs_err::write(&orphan, b"never linked").unwrap();
    let handle = start(&root, Options::default()).await;
    push(handle.addr(), b"kept").await;
    handle.shutdown().await;
    assert!(!upload.exists());
    assert!(!orphan.exists());
    let kept = Digest::sha256(b"kept");
    drop(Registry::open(&root).unwrap());
    assert!(
        root.join("blobs/sha256")
            .join(&kept.hex()[..2])
            .join(kept.hex())
            .exists()
    );
}

#[tokio::test]
async fn a_push_leaves_nothing_in_the_uploads() {
    let scratch = Scratch::new();
    let handle = start(scratch.path(), Options::default()).await;
    assert_eq!(push(handle.addr(), b"some").await.status(), 201);
    let wrong = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256(b"other"));
    let refused = Request::new("POST", &wrong)
        .body("some")
        .send(handle.addr())
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(files(&scratch.join("uploads")), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_blob_that_is_too_large_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new();
    let mut options = Options::default();
    options.blob_bytes_max = 10_000;
    let handle = start(scratch.path(), options).await;
    let content = vec![7; 10_001];
    assert_eq!(push(handle.addr(), &content).await.status(), 413);
    let started = Request::new("POST", "/v2/a/blobs/uploads/")
        .send(handle.addr())
        .await
        .unwrap();
    let location = started.header("location").unwrap().to_owned();
    // Without a length it is noticed on the way.
    let patch = Request::new("PATCH", &location).chunked().body(&*content);
    assert_eq!(patch.send(handle.addr()).await.unwrap().status(), 413);
    assert_eq!(push(handle.addr(), &content[1..]).await.status(), 201);
}

#[tokio::test]
async fn uploads_that_rest_too_long_make_room() {
    let scratch = Scratch::new();
    let mut options = Options::default();
    options.uploads_max = 2;
    options.upload_idle = Duration::from_secs(3600);
    let handle = start(&scratch.dir("patient"), options.clone()).await;
    let begin = async |addr| {
        let request = Request::new("POST", "/v2/a/blobs/uploads/");
        request.send(addr).await.unwrap().status()
    };
    let seen = [
        begin(handle.addr()).await,
        begin(handle.addr()).await,
        begin(handle.addr()).await,
    ];
    assert_eq!(seen, [202, 202, 429]);
    options.upload_idle = Duration::ZERO;
    let handle = start(&scratch.dir("impatient"), options).await;
    for _ in 0..5 {
        assert_eq!(begin(handle.addr()).await, 202);
    }
    assert!(files(&scratch.join("impatient/uploads")).len() <= 2);
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let scratch = Scratch::new();
    let mut options = Options::default();
    options.body_stall = Duration::from_millis(50);
    let handle = start(scratch.path(), options).await;
    let mut connection = Connection::new(TcpStream::connect(handle.addr()).await.unwrap());
    let digest = Digest::sha256(b"12345");
    let head = draught_testkit::http::Head {
        start: format!("POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1"),
        headers: vec![
            ("Host".to_owned(), handle.addr().to_string()),
            ("Content-Length".to_owned(), "5".to_owned()),
        ],
    };
    connection.write_head(&head).await.unwrap();
    let answer = connection.read_head().await.unwrap().unwrap();
    assert_eq!(answer.status(), 408);
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_what_was_there() {
    use draught_testkit::{MountGuard, need};
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.dir("small-disk");
    let mut mount = std::process::Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=4m", "draught-test"])
        .arg(&dir);
    let _mounted = MountGuard::run(&mut mount, &dir);
    let handle = start(&dir.join("registry"), Options::default()).await;
    assert_eq!(push(handle.addr(), b"small").await.status(), 201);
    let large = vec![7; 8 << 20];
    assert_eq!(push(handle.addr(), &large).await.status(), 507);
    let get = Request::new("GET", &format!("/v2/a/blobs/{}", Digest::sha256(b"small")));
    assert_eq!(get.send(handle.addr()).await.unwrap().body, b"small");
    // The failed upload has given its room back.
    assert_eq!(push(handle.addr(), &large[..2 << 20]).await.status(), 201);
    handle.shutdown().await;
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_a_client_that_sleeps() {
    let scratch = Scratch::new();
    let mut options = Options::default();
    options.shutdown_grace = Duration::from_millis(100);
    let handle = start(scratch.path(), options).await;
    let addr = handle.addr();
    let content = vec![7; 32 << 20];
    assert_eq!(push(addr, &content).await.status(), 201);
    let mut connection = Connection::new(TcpStream::connect(addr).await.unwrap());
    let head = draught_testkit::http::Head {
        start: format!("GET /v2/a/blobs/{} HTTP/1.1", Digest::sha256(&content)),
        headers: vec![("Host".to_owned(), addr.to_string())],
    };
    connection.write_head(&head).await.unwrap();
    assert_eq!(connection.read_head().await.unwrap().unwrap().status(), 200);
    // It reads no further.
    tokio::time::timeout(Duration::from_secs(20), handle.shutdown())
        .await
        .unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn connections_that_rest_make_room_for_others() {
    let scratch = Scratch::new();
    let mut options = Options::default();
    options.connections_max = 2;
    options.connection_idle = Duration::from_millis(200);
    let handle = start(scratch.path(), options).await;
    let addr = handle.addr();
    // These say nothing, and have taken all places.
    let idle = [
        TcpStream::connect(addr).await.unwrap(),
        TcpStream::connect(addr).await.unwrap(),
    ];
    let request = Request::new("GET", "/v2/");
    let answer = tokio::time::timeout(Duration::from_secs(20), request.send(addr))
        .await
        .unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    drop(idle);
}
