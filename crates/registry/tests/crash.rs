//! What was answered with 201 is there, whatever happens to the process.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use draught_digest::Digest;
use draught_registry::{Registry, serve};
use draught_testkit::http::Request;
use draught_testkit::{Process, Scratch, net};
use serde_json::json;
use tokio::net::TcpListener;

/// Tells this program, started again, to be a registry: its directory, and the file to write its
/// address to.
const DIR: &str = "DRAUGHT_TEST_REGISTRY_DIR";
const ADDR: &str = "DRAUGHT_TEST_REGISTRY_ADDR";

/// Kills of one run: enough to hit every step of a push.
const KILLS: usize = 25;

/// Serves until killed, when started by the test below; does nothing by itself.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let addr_file = std::env::var(ADDR).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let handle = serve(Registry::open(dir).unwrap(), listener).unwrap();
        let staged = format!("{addr_file}.new");
        fs_err::write(&staged, handle.addr().to_string()).unwrap();
        fs_err::rename(staged, addr_file).unwrap();
        std::future::pending::<()>().await;
    });
}

fn start(dir: &Path, scratch: &Scratch) -> (Process, SocketAddr) {
    let addr_file = scratch.join("addr");
    fs_err::remove_file(&addr_file).ok();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]);
    command.env(DIR, dir).env(ADDR, &addr_file);
    let mut process = Process::start(&mut command, &scratch.join("log")).unwrap();
    process
        .wait_until(net::START_MAX, || addr_file.exists())
        .unwrap();
    let addr = fs_err::read_to_string(addr_file).unwrap();
    (process, addr.parse().unwrap())
}

/// Blobs and tags that a registry has answered for.
#[derive(Debug, Default)]
struct Promised {
    blobs: Vec<(Vec<u8>, Digest)>,
    tags: Vec<(String, Digest)>,
}

fn content(client: usize, number: usize) -> Vec<u8> {
    let seed = format!("{client} {number} ").into_bytes();
    let bytes = 1000 + number * 7919 % 3_000_000;
    seed.into_iter().cycle().take(bytes).collect()
}

/// Pushes one image; what was not answered was not promised.
async fn push(
    addr: SocketAddr,
    client: usize,
    number: usize,
    promised: &Mutex<Promised>,
) -> std::io::Result<()> {
    let bytes = content(client, number);
    let digest = Digest::sha256(&bytes);
    let post = Request::new("POST", &format!("/v2/image/blobs/uploads/?digest={digest}"));
    let answer = post.body(&*bytes).send(addr).await?;
    assert_eq!(answer.status(), 201);
    let length = bytes.len();
    promised.lock().unwrap().blobs.push((bytes, digest));
    let descriptor = json!({"mediaType": "a/b", "digest": digest.to_string(), "size": length});
    let manifest = json!({"schemaVersion": 2, "config": descriptor, "layers": [descriptor]});
    let tag = format!("t{client}-{number}");
    let put = Request::new("PUT", &format!("/v2/image/manifests/{tag}"));
    let answer = put.body(manifest.to_string()).send(addr).await?;
    assert_eq!(answer.status(), 201);
    let digest = Digest::sha256(manifest.to_string().as_bytes());
    promised.lock().unwrap().tags.push((tag, digest));
    Ok(())
}

async fn assert_kept(addr: SocketAddr, promised: &Mutex<Promised>) {
    let promised = std::mem::take(&mut *promised.lock().unwrap());
    for (bytes, digest) in promised.blobs {
        let get = Request::new("GET", &format!("/v2/image/blobs/{digest}"));
        let answer = get.send(addr).await.unwrap();
        assert!(answer.body == bytes, "{digest}: {}", answer.status());
    }
    for (tag, digest) in promised.tags {
        let get = Request::new("GET", &format!("/v2/image/manifests/{tag}"));
        let answer = get.send(addr).await.unwrap();
        assert_eq!(
            Digest::sha256(&answer.body),
            digest,
            "{tag}: {}",
            answer.status()
        );
    }
}

/// Every blob that is visible is whole, promised or not.
fn assert_whole(dir: &Path) {
    let links = dir.join("repositories/image/_blobs");
    for entry in fs_err::read_dir(links).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs_err::read(entry.path()).unwrap();
        assert_eq!(
            Digest::sha256(&bytes).hex(),
            entry.file_name().to_str().unwrap()
        );
    }
    assert_eq!(fs_err::read_dir(dir.join("uploads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_that_was_promised() {
    let scratch = Scratch::new();
    let dir = scratch.join("registry");
    let promised = Arc::new(Mutex::new(Promised::default()));
    let mut pushed = 0;
    for round in 0..KILLS {
        let (process, addr) = start(&dir, &scratch);
        assert_kept(addr, &promised).await;
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (promised, stop) = (Arc::clone(&promised), Arc::clone(&stop));
                tokio::spawn(async move {
                    for number in 0.. {
                        let number = round * 1000 + number;
                        let result = push(addr, client, number, &promised).await;
                        if result.is_err() || stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                })
            })
            .collect();
        // Not at the same step of the pushes every time.
        tokio::time::sleep(Duration::from_millis(10 + (round as u64 * 37) % 120)).await;
        drop(process);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        pushed += promised.lock().unwrap().tags.len();
    }
    let (_process, addr) = start(&dir, &scratch);
    assert_kept(addr, &promised).await;
    assert_whole(&dir);
    assert!(pushed > KILLS, "only {pushed} images were pushed");
}
