//! Formats, and how images are made known.

use draught_testkit::{images, registry};
use serde_json::Value;

use crate::stage::Stage;

fn inspect(stage: &Stage, image: &str) -> Value {
    let output = stage.done(&["--format", "json", "inspect", image]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_format_can_be_asked_for_and_is_sound() {
    let mut stage = Stage::new();
    // The other one has names that eStargz can't hold.
    let Some(base) = images::minbase() else {
        return;
    };
    stage.from = format!("oci:{}:latest", base.display());
    for (name, options, format) in [
        ("e", &["--to", "estargz"][..], "eStargz"),
        (
            "p",
            &["--to", "estargz", "--batch-size", "64KiB"],
            "eStargz",
        ),
        ("g", &["--to", "oci"], "plain layers"),
        (
            "z",
            &["--to", "oci", "--compressor", "zstd", "--level", "7"],
            "plain layers",
        ),
        ("n", &["--to", "nydus"], "nydus"),
    ] {
        let to = format!("oci:{name}:new");
        stage.json(&to, options);
        stage.done(&["check", &to]);
        let image = &inspect(&stage, &to)["images"][0];
        assert_eq!(image["format"], format, "{name}");
        assert_eq!(image["lazy"], format != "plain layers", "{name}");
    }
    // And back, from what has no archives any more.
    let back = [
        "--format",
        "json",
        "convert",
        "--to",
        "oci",
        "oci:n:new",
        "oci:back:new",
    ];
    stage.done(&back);
    stage.done(&["check", "oci:back:new"]);
}

#[test]
fn options_of_other_formats_are_refused() {
    let stage = Stage::new();
    for (options, says) in [
        (&["--to", "oci", "--chunk-size", "1MiB"][..], "--chunk-size"),
        (&["--to", "oci", "--compressor", "lz4"], "gzip or zstd"),
        (
            &["--to", "estargz", "--compressor", "zstd"],
            "eStargz is gzip",
        ),
        (&["--to", "estargz", "--digester", "blake3"], "SHA-256"),
        (&["--to", "estargz", "--level", "13"], "level is 13"),
        (&["--compressor", "gzip"], "zstd, lz4 or none"),
        (
            &["--to", "oci", "--chunk-dict", "oci:x:y"],
            "a chunk dictionary is for nydus images only",
        ),
        (
            &["--to", "oci", "--blob-backend", "dir:blobs"],
            "a blob backend is for nydus images only",
        ),
        (&["--chunk-dict", "oci:x:y"], "oci:x"),
        (&["--to", "oci", "--merge-platforms"], "serve every client"),
        (
            &["--annotate", "dev.draught.convert=x"],
            "dev.draught.convert",
        ),
    ] {
        let args = [&["convert", &stage.from, "oci:out:new"], options].concat();
        let output = stage.draught(&args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{options:?}: {text}");
        assert!(text.contains(says), "{options:?}: {text}");
        assert!(!stage.scratch.join("out").exists(), "{options:?}");
    }
    for options in [
        &["--annotate", "novalue"][..],
        &["--force-push"],
        &["--referrer", "--merge-platforms"],
    ] {
        let args = [&["convert", &stage.from, "oci:out:new"], options].concat();
        assert_eq!(stage.draught(&args).status.code(), Some(2), "{options:?}");
    }
    assert_eq!(
        stage.draught(&["convert", &stage.from]).status.code(),
        Some(2)
    );
}

#[test]
fn an_image_is_made_known_as_it_was_asked_for() {
    let (stage, registry) = (Stage::new(), registry());
    let (plain, lazy) = (registry.reference("app:1"), registry.reference("app:lazy"));
    stage.json(&plain, &["--to", "oci"]);
    let before = inspect(&stage, &plain)["digest"].clone();
    let run = |args: &[&str]| -> Value {
        let output = stage.done(&[&["--format", "json", "convert"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let referrer = run(&["--referrer", &plain]);
    assert_eq!(inspect(&stage, &plain)["digest"], before);
    let by_digest = format!(
        "{}@{}",
        plain.trim_end_matches(":1"),
        referrer["digest"].as_str().unwrap()
    );
    assert_eq!(inspect(&stage, &by_digest)["images"][0]["format"], "nydus");
    let annotate = "org.example.team=blue";
    let merged = run(&["--merge-platforms", "--annotate", annotate, &plain, &lazy]);
    let index = inspect(&stage, &lazy);
    assert_eq!(index["digest"], merged["digest"]);
    let formats: Vec<_> = index["images"].as_array().unwrap().iter().collect();
    let formats: Vec<_> = formats.iter().map(|image| &image["format"]).collect();
    assert_eq!(formats, ["plain layers", "nydus"]);
    // Nothing to do, and it says so.
    let again = run(&["--merge-platforms", "--annotate", annotate, &plain, &lazy]);
    assert_eq!(again["unchanged"], true);
    let said = stage.done(&[
        "convert",
        "--merge-platforms",
        "--annotate",
        annotate,
        &plain,
        &lazy,
    ]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("nothing to do"), "{said}");
}

#[test]
fn chunks_of_a_dictionary_are_not_stored_again() {
    let (stage, registry) = (Stage::new(), registry());
    let (base, app) = (registry.reference("base:1"), registry.reference("app:1"));
    stage.json(&base, &[]);
    let converted = stage.json(&app, &["--chunk-dict", &base]);
    let layers = converted["images"][0]["layers"].as_array().unwrap();
    let new: u64 = layers
        .iter()
        .map(|layer| layer["new_chunks"].as_u64().unwrap())
        .sum();
    // Some chunks are there twice, where a file's chunks could not follow each other otherwise.
    assert!(new <= 2, "{converted}");
    stage.done(&["check", &app]);
    let blobs = inspect(&stage, &app)["images"][0]["layers"].clone();
    let blobs = blobs.as_array().unwrap().iter();
    let mut data = blobs.filter(|layer| layer["role"] == "data").peekable();
    assert!(data.peek().is_some());
    for blob in data {
        assert_eq!(blob["annotations"]["dev.draught.blob.from"], base);
    }
    // It is whole without the other.
    let (other, mirror) = (registry.reference("app:2"), registry.reference("mirror:1"));
    stage.done(&["convert", &app, &other]);
    stage.done(&["convert", &app, &mirror]);
    stage.done(&["check", &mirror]);
}

#[test]
fn blobs_can_be_kept_in_a_directory() {
    let stage = Stage::new();
    let blobs = format!("dir:{}", stage.scratch.join("blobs").display());
    let converted = stage.json("oci:out:new", &["--blob-backend", &blobs]);
    let of_image = converted["images"][0]["blobs"].as_array().unwrap();
    assert!(!of_image.is_empty());
    for blob in of_image {
        let name = blob["digest"]
            .as_str()
            .unwrap()
            .trim_start_matches("sha256:")
            .to_owned();
        let file = stage.scratch.join("blobs").join(&name);
        assert_eq!(
            fs_err::metadata(file).unwrap().len(),
            blob["bytes"].as_u64().unwrap()
        );
        assert!(!stage.scratch.join("out/blobs/sha256").join(name).exists());
    }
    let image = &inspect_with(&stage, "oci:out:new", &blobs)["images"][0];
    assert_eq!(image["layers"].as_array().unwrap().len(), 1);
    stage.done(&["check", "--blob-backend", &blobs, "oci:out:new"]);
    let without = stage.draught(&["check", "oci:out:new"]);
    assert_eq!(without.status.code(), Some(1));
    let text = [without.stdout, without.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("--blob-backend"), "{text}");
}

fn inspect_with(stage: &Stage, image: &str, blobs: &str) -> Value {
    let args = [
        "--format",
        "json",
        "inspect",
        "--blob-backend",
        blobs,
        image,
    ];
    serde_json::from_slice(&stage.done(&args).stdout).unwrap()
}
