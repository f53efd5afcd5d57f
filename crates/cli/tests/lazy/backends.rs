//! Images whose manifests list no blobs: these are in S3, or in a directory.

use std::path::{Path, PathBuf};

use draught_digest::Digest;
use draught_testkit::S3Server;
use draught_testkit::need::{self, Nydus};
use serde_json::{Value, json};

use crate::harness::{Stage, UNREAD, children, eventually, kill, read_range, succeed};

/// What the image says of its blobs; nobody may go there because of that.
const SAID: &str = "s3://blobs/said-by-the-image/";

/// An image in a layout, with its blobs taken out of it.
struct Moved {
    layout: PathBuf,
    /// Each with its digest's digits.
    blobs: Vec<(String, Vec<u8>)>,
    bootstrap: Vec<u8>,
}

impl Moved {
    fn reference(&self) -> String {
        format!("oci:{}", self.layout.display())
    }
}

fn document(layout: &Path, descriptor: &Value) -> Value {
    serde_json::from_slice(&blob(layout, descriptor)).unwrap()
}

fn path(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    fs_err::read(path(layout, descriptor)).unwrap()
}

/// Writes a document in the place of another.
fn replace(layout: &Path, descriptor: &mut Value, document: &Value) {
    fs_err::remove_file(path(layout, descriptor)).unwrap();
    let bytes = document.to_string().into_bytes();
    descriptor["digest"] = json!(Digest::sha256(&bytes).to_string());
    descriptor["size"] = json!(bytes.len());
    fs_err::write(path(layout, descriptor), bytes).unwrap();
}

/// Converts the test image and writes its manifest as the converters of others do that know of backends: with
/// the layer of metadata and no other.
fn moved(stage: &Stage) -> Moved {
    let layout = stage.scratch.join("moved");
    let source = format!("dir:{}", stage.scratch.join("rootfs").display());
    let reference = format!("oci:{}", layout.display());
    succeed(&stage.draught(&["convert", "--chunk-size", "64KiB", &source, &reference]));
    let index = fs_err::read(layout.join("index.json")).unwrap();
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    let written = &mut index["manifests"][0];
    let mut manifest = document(&layout, written);
    let mut layers = manifest["layers"].as_array().unwrap().clone();
    let mut metadata = layers.pop().unwrap();
    metadata["annotations"]["dev.draught.blob.backend"] = json!(SAID);
    let mut config = document(&layout, &manifest["config"]);
    let diff_ids = config["rootfs"]["diff_ids"].as_array_mut().unwrap();
    *diff_ids = vec![diff_ids.pop().unwrap()];
    replace(&layout, &mut manifest["config"], &config);
    manifest["layers"] = json!([metadata]);
    replace(&layout, written, &manifest);
    fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
    let blobs = layers.iter().map(|layer| {
        let bytes = blob(&layout, layer);
        fs_err::remove_file(path(&layout, layer)).unwrap();
        (Digest::sha256(&bytes).hex(), bytes)
    });
    let blobs = blobs.collect();
    let bootstrap = draught_importer::metadata_from_layer(&blob(&layout, &metadata), 1 << 30);
    Moved {
        blobs,
        bootstrap: bootstrap.unwrap(),
        layout,
    }
}

fn mount(stage: &Stage, reference: &str, backend: &str) -> std::process::Output {
    let dir = stage.mountpoint.to_str().unwrap();
    stage.draught(&["mount", "--blob-backend", backend, reference, dir])
}

#[test]
fn an_image_is_read_from_s3_whoever_is_killed() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let server = S3Server::start();
    let image = moved(&stage);
    for (name, bytes) in &image.blobs {
        server.put(&format!("images/{name}"), bytes.clone());
    }
    stage.environment.extend(S3Server::environment());
    stage.start(&[]);
    let (reference, dir) = (image.reference(), stage.mountpoint.clone());
    let backend = S3Server::location(server.addr(), "images/");
    // Nobody goes where only the image says so.
    for output in [
        stage.draught(&["mount", &reference, dir.to_str().unwrap()]),
        stage.draught(&["inspect", &reference]),
    ] {
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains("--blob-backend") && text.contains(SAID),
            "{text}"
        );
    }
    // A place that does not have them.
    let nowhere = S3Server::location(server.addr(), "other/");
    let output = mount(&stage, &reference, &nowhere);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains(&image.blobs[0].0),
        "{text}"
    );
    for command in ["check", "inspect"] {
        succeed(&stage.draught(&[command, "--blob-backend", &backend, &reference]));
    }
    succeed(&mount(&stage, &reference, &backend));
    let names = stage.readable();
    assert!(stage.read(names[0]).unwrap());
    let keeper = stage.keeper();
    stage.read_during(4, || {
        for _ in 0..5 {
            eventually("a worker runs", || {
                !children(keeper, "draught-worker").is_empty()
            });
            children(keeper, "draught-worker")
                .into_iter()
                .for_each(kill);
        }
    });
    stage.assert_all_right();
    // What is kept of it changes nothing of where it must be said to be.
    succeed(&stage.umount());
    let output = stage.draught(&["mount", &reference, dir.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("--blob-backend"),
        "{text}"
    );
    succeed(&mount(&stage, &reference, &backend));
    assert!(stage.read(UNREAD).unwrap());
    // Its record says where it is read from, and nothing that is secret.
    let state = fs_err::read_to_string(stage.root().join("mounts.json")).unwrap();
    assert!(state.contains("s3://blobs/images/"), "{state}");
    let [_, (_, secret)] = S3Server::environment();
    assert!(!state.contains(&secret) && !stage.log().contains(&secret));
}

#[test]
fn a_blob_that_rots_in_a_backend_is_an_error_and_is_named() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let image = moved(&stage);
    let dir = stage.scratch.dir("kept");
    for (name, bytes) in &image.blobs {
        let mut bytes = bytes.clone();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        fs_err::write(dir.join(name), bytes).unwrap();
    }
    let backend = format!("dir:{}", dir.display());
    stage.start(&[]);
    let reference = image.reference();
    let output = stage.draught(&["check", "--blob-backend", &backend, &reference]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains(&image.blobs[0].0),
        "{text}"
    );
    succeed(&mount(&stage, &reference, &backend));
    let mut failed = 0;
    for name in stage.readable() {
        match stage.read(name) {
            Ok(right) => assert!(right, "{name} has other bytes"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{name}");
                assert!(text.contains(name), "check did not name {name}: {text}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    // Whoever puts the right bytes there has the files back.
    for (name, bytes) in &image.blobs {
        fs_err::write(dir.join(name), bytes).unwrap();
    }
    eventually("all files can be read", || {
        stage.readable().iter().all(|name| stage.read(name).is_ok())
    });
    stage.assert_all_right();
}

#[test]
fn nydusd_reads_what_is_in_s3() {
    let Some(stage) = Stage::new() else { return };
    let Some(nydus) = need::nydus() else { return };
    let server = S3Server::start();
    let image = moved(&stage);
    for (name, bytes) in &image.blobs {
        server.put(&format!("images/{name}"), bytes.clone());
    }
    read_by_nydusd(&stage, &nydus, &server, &image.bootstrap);
}

fn read_by_nydusd(stage: &Stage, nydus: &Nydus, server: &S3Server, bootstrap: &[u8]) {
    let [(_, id), (_, secret)] = S3Server::environment();
    let backend = json!({ "type": "s3", "config": {
        "scheme": "http",
        "endpoint": server.addr().to_string(),
        "region": "us-east-1",
        "bucket_name": S3Server::bucket(),
        "object_prefix": "images/",
        "access_key_id": id,
        "access_key_secret": secret,
    }});
    let work = stage.scratch.dir("nydusd");
    let file = work.join("bootstrap");
    fs_err::write(&file, bootstrap).unwrap();
    let served = nydus.serve_from(&file, &backend, &work, &stage.mountpoint);
    let served = served.unwrap();
    for (name, content) in stage.files.iter().filter(|(name, _)| *name != UNREAD) {
        let read = read_range(&stage.mountpoint.join(name), 0, content.len()).unwrap();
        assert!(read == *content, "{name} has other bytes");
    }
    drop(served);
}
