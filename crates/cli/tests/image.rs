//! `draught convert`, `inspect` and `check` on an image in an OCI layout.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::os::unix::fs::{FileExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use draught_testkit::Scratch;
use serde_json::Value;

/// A directory of files, and the program over it.
struct Stage {
    scratch: Scratch,
}

impl Stage {
    /// With a small tree: files of several chunks, empty ones, links.
    fn new() -> Self {
        let scratch = Scratch::new();
        let root = scratch.dir("rootfs");
        fs_err::create_dir_all(root.join("usr/bin")).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32)
            .flat_map(|it| (it / 7).to_le_bytes())
            .collect();
        fs_err::write(root.join("usr/bin/large"), &content).unwrap();
        fs_err::write(root.join("usr/bin/same"), &content).unwrap();
        fs_err::write(root.join("empty"), b"").unwrap();
        symlink("usr/bin/large", root.join("link")).unwrap();
        Self { scratch }
    }

    fn draught(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_draught"))
            .arg("--root")
            .arg(self.scratch.join("root"))
            .args(["--progress", "none"])
            .args(args)
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.draught(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[&["--format", "json"], args].concat())).unwrap()
    }

    fn convert(&self, args: &[&str]) -> Value {
        self.json(&[&["convert", "dir:rootfs", "oci:image:new"], args].concat())
    }

    /// The file that has a blob.
    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.scratch.join("image/blobs/sha256").join(hex)
    }
}

fn flip(file: &PathBuf, at: u64) {
    let file = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.file().read_exact_at(&mut byte, at).unwrap();
    file.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn what_was_converted_is_sound_and_says_what_it_is() {
    let stage = Stage::new();
    let converted = stage.convert(&[]);
    let image = &converted["images"][0];
    assert_eq!(image["blobs"].as_array().unwrap().len(), 1);

    let checked = stage.json(&["check", "oci:image:new"]);
    assert_eq!(checked["sound"], true, "{checked}");
    assert_eq!(
        checked["checked"]["chunks"],
        image["layers"][0]["new_chunks"]
    );
    assert_eq!(stage.done(&["check", "oci:image:new"]), "");

    let shown = stage.json(&["inspect", "oci:image:new"]);
    assert_eq!(shown["digest"], converted["digest"]);
    let content = &shown["images"][0]["content"];
    assert_eq!(content["files"], 3);
    assert_eq!(content["symlinks"], 1);
    assert_eq!(content["file_bytes"], 24_000_000);
    assert!(
        stage
            .done(&["inspect", "oci:image:new"])
            .contains("zstd, blake3")
    );
}

#[test]
fn what_images_have_in_common_is_shown() {
    let stage = Stage::new();
    stage.convert(&[]);
    fs_err::write(
        stage.scratch.join("rootfs/more"),
        b"in the second image only",
    )
    .unwrap();
    let convert = |to: &str, more: &[&str]| {
        stage.json(&[&["convert", "dir:rootfs", to], more].concat());
    };
    convert("oci:image:more", &[]);
    convert("oci:image:sha256", &["--digester", "sha256"]);
    let others = [
        "inspect",
        "oci:image:more",
        "--with",
        "oci:image:new",
        "--with",
        "oci:image:more",
        "--with",
        "oci:image:sha256",
    ];
    let shown = stage.json(&others);
    let content = &shown["images"][0]["content"];
    let number = |value: &Value| value.as_u64().unwrap();
    let chunks = number(&content["chunks"]);
    let shared = content["shared"].as_array().unwrap();
    assert_eq!(number(&shared[0]["chunks"]), chunks - 1);
    assert_eq!(
        number(&shared[0]["chunk_bytes"]),
        number(&content["chunk_bytes"]) - 24
    );
    assert_eq!(number(&shared[1]["chunks"]), chunks);
    assert_eq!(shared[2]["comparable"], false);
    assert_eq!(shared[2]["chunks"], 0);

    let blob = &content["blobs"][0];
    assert_eq!(number(&blob["chunks"]), chunks);
    assert_eq!(number(&blob["blob_chunks"]), chunks);
    assert_eq!(blob["device_used_bytes"], blob["device_bytes"]);
    assert!(number(&blob["stored_used_bytes"]) < number(&blob["stored_bytes"]));

    let text = stage.done(&others);
    for words in [
        "shared with",
        "100.0 %",
        "oci:image:sha256 can't be compared: its chunks are digested with sha256",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // What is no lazily readable image can't be compared with.
    let output = stage.draught(&["inspect", "oci:image:new", "--with", "oci:nowhere:new"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_docker_archive_holds_the_same_image() {
    let stage = Stage::new();
    let converted = stage.convert(&[]);
    let archive = "docker-archive:image.tar:some/app:1";
    let archived = stage.json(&["convert", "dir:rootfs", archive]);
    assert_eq!(archived["digest"], converted["digest"]);
    for name in [archive, "docker-archive:image.tar"] {
        let checked = stage.json(&["check", name]);
        assert_eq!(checked["sound"], true, "{checked}");
        let shown = stage.json(&["inspect", name]);
        assert_eq!(shown["digest"], converted["digest"]);
        assert_eq!(shown["images"][0]["content"]["files"], 3);
    }
    let other = stage.draught(&["check", "docker-archive:image.tar:other"]);
    let stderr = String::from_utf8_lossy(&other.stderr);
    assert!(stderr.contains("docker.io/some/app:1"), "{stderr}");
}

#[test]
fn the_same_input_gives_the_same_image_on_any_number_of_threads() {
    let stage = Stage::new();
    let one = stage.convert(&["--threads", "1"]);
    let four = stage.convert(&["--threads", "4"]);
    assert_eq!(one["digest"], four["digest"]);
    let other = stage.convert(&["--chunk-size", "256KiB", "--compressor", "lz4"]);
    assert_ne!(one["digest"], other["digest"]);
    assert_eq!(stage.json(&["check", "oci:image:new"])["sound"], true);
}

#[test]
fn a_flipped_byte_is_found_with_its_blob_range_chunk_and_file() {
    let stage = Stage::new();
    let converted = stage.convert(&["--compressor", "none"]);
    let digest = converted["images"][0]["blobs"][0]["digest"]
        .as_str()
        .unwrap();
    flip(&stage.blob(digest), 5_000_000);

    let output = stage.draught(&["check", "oci:image:new"]);
    assert_eq!(output.status.code(), Some(1));
    let faults = String::from_utf8(output.stdout).unwrap();
    let line = faults.lines().find(|line| line.contains("chunk blake3:"));
    let line = line.unwrap_or_else(|| panic!("no chunk is named: {faults}"));
    assert!(line.starts_with(digest), "{line}");
    assert!(line.contains("bytes 4194304..5242880"), "{line}");
    assert!(line.contains("/usr/bin/large"), "{line}");
}

#[test]
fn a_blob_that_is_cut_off_or_gone_is_found() {
    let stage = Stage::new();
    let converted = stage.convert(&[]);
    let digest = converted["images"][0]["blobs"][0]["digest"]
        .as_str()
        .unwrap();
    let file = fs_err::OpenOptions::new()
        .write(true)
        .open(stage.blob(digest))
        .unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let output = stage.draught(&["check", "oci:image:new"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(digest));

    fs_err::remove_file(stage.blob(digest)).unwrap();
    let output = stage.draught(&["--format", "json", "check", "oci:image:new"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sound"], false);
    assert!(!report["faults"].as_array().unwrap().is_empty());
}

#[test]
fn options_that_can_not_be_are_refused_before_anything_is_read() {
    let stage = Stage::new();
    let output = stage.draught(&[
        "convert",
        "dir:nowhere",
        "oci:image:new",
        "--chunk-size",
        "3MiB",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("power of two"), "{stderr}");
    assert!(!stage.scratch.join("image").exists());
}

#[test]
fn damaged_metadata_is_found() {
    let stage = Stage::new();
    let converted = stage.convert(&[]);
    let shown = stage.json(&["inspect", "oci:image:new"]);
    let layers = shown["images"][0]["layers"].as_array().unwrap();
    let metadata = layers
        .iter()
        .find(|layer| layer["role"] == "metadata")
        .unwrap();
    flip(&stage.blob(metadata["digest"].as_str().unwrap()), 100);
    let output = stage.draught(&["check", "oci:image:new"]);
    assert_eq!(output.status.code(), Some(1), "{converted}");
}
