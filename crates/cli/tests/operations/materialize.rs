//! An image that was pulled lazily is made whole in containerd.

use draught_digest::Digest;
use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::http::Request;
use serde_json::{Value, json};

use crate::stage::{LAYERS, Stage, eventually, layers_of};

/// Bytes of a layer that come before its server falls silent: some messages, and not all.
const STALL_BYTES: u64 = (2 << 20) + 1000;

fn bytes(report: &Value, place: &str) -> u64 {
    report["fetched"][place]["bytes"].as_u64().unwrap_or(0)
}

fn stored_bytes(stage: &Stage, digests: &[String]) -> u64 {
    let file = |digest: &String| stage.registry.blob_file(&digest.parse::<Digest>().unwrap());
    let length = |digest| fs_err::metadata(file(digest)).unwrap().len();
    digests.iter().map(length).sum()
}

#[test]
fn an_image_without_its_layers_can_be_exported_and_pushed_again() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let archive = stage.scratch.join("image.tar");
    let failed = stage.export(&archive);
    assert!(!failed.status.success(), "nothing is missing");
    let words = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(words.contains("not found"), "{words}");
    let report = stage.materialize(&[]);
    let place = stage.registry.reference("some/app");
    assert_eq!(
        bytes(&report, &place),
        stored_bytes(&stage, &layers),
        "{report}"
    );
    assert_eq!(report["blobs"].as_array().unwrap().len(), LAYERS);
    // The other side of the same: manifest and configuration were there.
    assert_eq!(report["present"]["blobs"], 1 + 1);
    let exported = stage.export(&archive);
    assert!(exported.status.success(), "{exported:?}");
    let expect = stage.manifest(&format!("docker://{}", stage.reference()));
    let out = stage.scratch.join("exported");
    let mut skopeo = std::process::Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--insecure-policy"]);
    skopeo.arg(format!("oci-archive:{}", archive.display()));
    draught_testkit::process::run(skopeo.arg(format!("oci:{}:it", out.display())));
    assert_eq!(stage.manifest(&format!("oci:{}:it", out.display())), expect);
    let pushed = stage.other.reference("copy/app:2");
    stage.ctr(&[
        "images",
        "push",
        "--plain-http",
        &pushed,
        &stage.reference(),
    ]);
    assert_eq!(stage.manifest(&format!("docker://{pushed}")), expect);
    // Again is fine, and moves nothing.
    let report = stage.materialize(&[]);
    assert_eq!(report["fetched"], json!({}));
    assert_eq!(report["present"]["blobs"], 2 + LAYERS);
    assert_eq!(stage.ctr(&["leases", "ls", "--quiet"]), "");
}

#[test]
fn what_was_brought_stays_when_garbage_is_collected() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let manifest = stage.manifest(&format!("docker://{}", stage.reference()));
    let manifest = Digest::sha256(manifest.as_bytes()).to_string();
    // As CRI pulls with discarded layers: nothing refers to them.
    for index in 0..LAYERS {
        let label = format!("containerd.io/gc.ref.content.l.{index}=");
        stage.ctr(&["content", "label", &manifest, &label]);
    }
    stage.materialize(&[]);
    stage.collect();
    let listed = stage.ctr(&["content", "ls"]);
    for (index, layer) in layers.iter().enumerate() {
        let line = listed.lines().find(|line| line.starts_with(layer.as_str()));
        let line = line.unwrap_or_else(|| panic!("{layer} was collected"));
        let source = format!(
            "containerd.io/distribution.source.{}=some/app",
            stage.registry.addr().ip()
        );
        assert!(line.contains(&source), "{line}");
        let label = format!("containerd.io/gc.ref.content.l.{index}={layer}");
        assert!(listed.contains(&label), "{listed}");
    }
    // And goes with the image.
    stage.ctr(&["images", "rm", "--sync", &stage.reference()]);
    assert!(!stage.has(&layers[0]));
}

#[test]
fn a_document_that_is_missing_is_brought_too() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let manifest = stage.manifest(&format!("docker://{}", stage.reference()));
    let digest = Digest::sha256(manifest.as_bytes()).to_string();
    stage.ctr(&["content", "rm", &digest]);
    let report = stage.materialize(&[]);
    let brought = report["blobs"].as_array().unwrap().len();
    // Without its manifest the configuration is nobody's: containerd may have collected it by now.
    assert!((1 + LAYERS..=2 + LAYERS).contains(&brought), "{report}");
    stage.collect();
    assert!(layers.iter().all(|layer| stage.has(layer)));
    assert!(
        stage
            .export(&stage.scratch.join("image.tar"))
            .status
            .success()
    );
}

#[test]
fn a_killed_run_is_gone_on_with_and_no_byte_is_fetched_twice() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let proxy = stage.registry.proxy();
    proxy.inject(Rule::new(Fault::StallAfter(STALL_BYTES)).on_path(&layers[1]));
    let mut running = stage.materializing(&[]).spawn().unwrap();
    eventually("all but one layer are there, and a part of that", || {
        let active = stage.ctr(&["content", "active"]);
        let has_part = active
            .lines()
            .any(|line| line.contains(&layers[1]) && line.contains("MB"));
        has_part && stage.has(&layers[0]) && stage.has(&layers[2])
    });
    running.kill().unwrap();
    running.wait().unwrap();
    proxy.lift_all();
    // The lease of the killed one keeps what it wrote.
    stage.collect();
    let report = stage.materialize(&[]);
    let resumed = report["resumed_bytes"].as_u64().unwrap();
    assert_eq!(resumed, STALL_BYTES >> 20 << 20, "{report}");
    let place = stage.registry.reference("some/app");
    let whole = stored_bytes(&stage, &layers[1..2]);
    assert_eq!(bytes(&report, &place), whole - resumed);
    assert!(
        stage
            .export(&stage.scratch.join("image.tar"))
            .status
            .success()
    );
}

#[test]
fn wrong_bytes_of_the_registry_are_never_committed() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let proxy = stage.registry.proxy();
    let flip = || proxy.inject(Rule::new(Fault::FlipByte(3_000_000)).on_path(&layers[1]));
    let check = |output: &std::process::Output| {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains(&layers[1]), "{words}");
        assert!(!stage.has(&layers[1]));
        let active = stage.ctr(&["content", "active"]);
        assert!(!active.contains(&layers[1]), "{active}");
        // The others are there all the same.
        assert!(stage.has(&layers[0]) && stage.has(&layers[2]));
    };
    flip();
    check(&stage.try_materialize(&[]));
    proxy.lift_all();
    // The same behind what an earlier run left.
    proxy.inject(Rule::new(Fault::StallAfter(STALL_BYTES)).on_path(&layers[1]));
    let mut running = stage.materializing(&[]).spawn().unwrap();
    eventually("a part is there", || {
        let active = stage.ctr(&["content", "active"]);
        active
            .lines()
            .any(|line| line.contains(&layers[1]) && line.contains("MB"))
    });
    running.kill().unwrap();
    running.wait().unwrap();
    proxy.lift_all();
    flip();
    check(&stage.try_materialize(&[]));
    proxy.lift_all();
    stage.materialize(&[]);
    assert!(stage.has(&layers[1]));
}

#[test]
fn wrong_bytes_of_an_earlier_write_are_found_and_fetched_anew() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let mut ctr = stage.containerd.ctr();
    ctr.args(["content", "ingest", "--expected-digest", &layers[1]]);
    ctr.arg(format!("layer-{}", layers[1]));
    let mut ingest = ctr.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = ingest.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &[7; 1_500_000]).unwrap();
    drop(stdin);
    assert!(!ingest.wait().unwrap().success(), "these are other bytes");
    let active = stage.ctr(&["content", "active"]);
    assert!(active.contains(&layers[1]), "{active}");
    let report = stage.materialize(&[]);
    assert_eq!(report["resumed_bytes"], 0, "{report}");
    assert!(
        stage
            .export(&stage.scratch.join("image.tar"))
            .status
            .success()
    );
}

#[test]
fn two_at_once_fetch_everything_once() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    let running = [0, 1].map(|_| {
        let mut command = stage.materializing(&[]);
        command.stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    });
    for run in running {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success());
    }
    let counts = stage.registry.proxy().counts();
    for layer in &layers {
        assert_eq!(counts.matching("GET", layer).requests, 1);
        assert!(stage.has(layer));
    }
    assert_eq!(stage.ctr(&["leases", "ls", "--quiet"]), "");
}

#[test]
fn a_registry_that_is_gone_and_names_that_are_none_are_said_clearly() {
    let Some(stage) = Stage::new() else {
        return;
    };
    stage.pull_lazily();
    stage.registry.proxy().go_down();
    let output = stage.try_materialize(&[]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    let host = stage.registry.addr().to_string();
    assert!(
        words.contains(&format!("connection to {host} failed")),
        "{words}"
    );
    let active = stage.ctr(&["content", "active"]);
    assert!(!active.contains("layer-"), "{active}");
    let output = stage.try_materialize(&["--namespace", "other"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        words.contains("no image of that name in the namespace other"),
        "{words}"
    );
    let mut command =
        stage.command(&["materialize", "some/app:1", "--containerd", "/nowhere.sock"]);
    let words = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
    assert!(words.contains("/nowhere.sock"), "{words}");
}

#[test]
fn another_name_is_fetched_from_where_the_image_came_from() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let layers = stage.pull_lazily();
    // Nothing of that name is there.
    let name = stage.registry.reference("renamed/app:1");
    stage.ctr(&["images", "tag", &stage.reference(), &name]);
    let mut command = stage.command(&["materialize", &name, "--containerd"]);
    let report = draught_testkit::process::run(command.arg(stage.containerd.socket()));
    let report: Value = serde_json::from_str(&report).unwrap();
    let place = stage.registry.reference("some/app");
    assert_eq!(report["fetched"][&place]["blobs"], LAYERS, "{report}");
    assert!(layers.iter().all(|layer| stage.has(layer)));
    // Or from where one says.
    for layer in &layers {
        stage.ctr(&["content", "rm", layer]);
    }
    let from = format!("oci:{}:latest", stage.scratch.join("image").display());
    stage.registry.proxy().go_down();
    let report = stage.materialize(&["--from", &from]);
    assert_eq!(
        report["blobs"].as_array().unwrap().len(),
        LAYERS,
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_only_what_is_there_is_made_whole_unless_all_is_wanted() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let ours = stage.manifest(&format!("docker://{}", stage.reference()));
    let theirs = stage.push_another("foreign");
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let entry = |manifest: &str, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::sha256(manifest.as_bytes()).to_string(),
            "size": manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [entry(&ours, arch), entry(&theirs, "s390x")],
    });
    let put = Request::new("PUT", "/v2/some/app/manifests/1")
        .header("Content-Type", media_type)
        .body(index.to_string());
    assert_eq!(put.send(stage.registry.addr()).await.unwrap().status(), 201);
    let reference = stage.reference();
    stage.ctr(&[
        "images",
        "pull",
        "--plain-http",
        "--snapshotter",
        "native",
        &reference,
    ]);
    let (ours, theirs) = (layers_of(&ours), layers_of(&theirs));
    for layer in &ours {
        stage.ctr(&["content", "rm", layer]);
    }
    stage.materialize(&[]);
    assert!(ours.iter().all(|layer| stage.has(layer)));
    assert!(!theirs.iter().any(|layer| stage.has(layer)));
    let archive = stage.scratch.join("image.tar");
    assert!(stage.export(&archive).status.success());
    stage.materialize(&["--all-platforms"]);
    stage.collect();
    assert!(theirs.iter().all(|layer| stage.has(layer)));
    let archive = archive.to_str().unwrap();
    stage.ctr(&["images", "export", "--all-platforms", archive, &reference]);
}
