//! Whole images, from place to place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use draught_digest::Digest;
use draught_oci::{Any, Document, ImageConfig, Location, Platform};
use draught_packer::{ConvertOptions, LayerReport, PlatformChoice, Progress, convert};
use draught_testkit::compare::{self};
use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::{Scratch, images, need, registry};
use serde_json::Value;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn real_images_go_through_a_registry_and_are_served_by_nydusd() {
    if !need::root() {
        return;
    }
    for (name, dir) in [
        ("torture", Some(images::torture())),
        ("minbase", images::minbase()),
        ("python", images::python()),
    ] {
        let Some(dir) = dir else { continue };
        let registry = registry();
        let (from, to) = (layout(&dir), remote(&registry, &format!("{name}:lazy")));
        let converted = run(&from, &to).await.unwrap();
        check_documents(&to, &from, &converted).await;
        assert_served(&to, &expected(&from).await).await;

        // Once more, on other threads: the same image, and nothing is sent but the manifest.
        let before = registry.proxy().counts();
        let mut options = ConvertOptions {
            force: true,
            ..ConvertOptions::default()
        };
        pack(&mut options).threads = 3.try_into().unwrap();
        assert_eq!(
            run_with(&from, &to, &options).await.unwrap().digest,
            converted.digest
        );
        let sent = registry.proxy().counts().since(&before);
        assert_eq!(sent.matching("POST", "").requests, 0, "{sent:?}");
        assert_eq!(sent.matching("PUT", "").requests, 1, "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_make_images_smaller_and_leave_the_files_as_they_are() {
    let Some(dir) = images::minbase() else { return };
    let registry = registry();
    let mut sizes = Vec::new();
    for batch_bytes in [0, 128 << 10] {
        let to = remote(&registry, "batches:latest");
        let mut options = ConvertOptions::default();
        pack(&mut options).batch_bytes = batch_bytes;
        let converted = run_with(&layout(&dir), &to, &options).await.unwrap();
        sizes.push(
            converted.images[0]
                .blobs
                .iter()
                .map(|(_, bytes)| bytes)
                .sum::<u64>(),
        );
    }
    assert!(sizes[1] < sizes[0], "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_stays_an_index_and_what_is_no_image_stays_as_it_is() {
    let built = Built::new();
    let sources = entries(&built);
    let (from, to) = (built.tag(built.index(&sources)), built.out());
    let options = ConvertOptions {
        platform: PlatformChoice::All,
        ..ConvertOptions::default()
    };
    let converted = run_with(&from, &to, &options).await.unwrap();
    let (repository, Any::Index(index)) = open(&to).await else {
        panic!("no index");
    };
    assert_eq!(index.digest(), converted.digest);
    assert_eq!(index.annotations["org.opencontainers.image.title"], "many");
    let platforms = index.manifests.iter().map(|entry| &entry.platform);
    let platforms: Vec<_> = platforms
        .map(|platform| platform.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(
        platforms,
        [
            "linux/amd64",
            "unknown/unknown",
            "linux/arm64",
            "windows/amd64"
        ]
    );
    // Untouched, down to the byte, and whole.
    for at in [1, 3] {
        let entry = &index.manifests[at];
        assert_eq!(
            Value::String(entry.digest.to_string()),
            sources[at]["digest"]
        );
        assert!(converted.carried_over.contains(&entry.digest));
        for blob in manifest_of(&repository, entry).await.blobs() {
            bytes(&repository, blob).await;
        }
    }
    let kind = index.manifests[1].annotation("vnd.docker.reference.type");
    assert_eq!(kind, Some("attestation-manifest"));
    // Converted, as OCI whatever they were.
    assert_eq!(converted.images.len(), 2);
    for at in [0, 2] {
        let entry = &index.manifests[at];
        assert_eq!(
            entry.media_type,
            "application/vnd.oci.image.manifest.v1+json"
        );
        let manifest = manifest_of(&repository, entry).await;
        assert_eq!(
            manifest.config.media_type,
            "application/vnd.oci.image.config.v1+json"
        );
        assert_eq!(manifest.layers.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_goes_through_a_docker_archive_and_on_without_a_loss() {
    let built = Built::new();
    let from = built.tag(built.index(&entries(&built)));
    let options = |threads: usize| {
        let mut options = ConvertOptions {
            platform: PlatformChoice::All,
            ..ConvertOptions::default()
        };
        pack(&mut options).threads = threads.try_into().unwrap();
        options
    };
    let converted = run_with(&from, &built.out(), &options(2)).await.unwrap();
    let mut files = Vec::new();
    for threads in [1, 4] {
        let file = built.scratch.join(format!("{threads}.tar"));
        let to: Location = format!("docker-archive:{}:some/app:1", file.display())
            .parse()
            .unwrap();
        let archived = run_with(&from, &to, &options(threads)).await.unwrap();
        assert_eq!(archived.digest, converted.digest);
        files.push((fs_err::read(&file).unwrap(), file));
    }
    assert!(files[0].0 == files[1].0, "the archives differ");

    let registry = registry();
    let archive: Location = format!("docker-archive:{}", files[0].1.display())
        .parse()
        .unwrap();
    let on = remote(&registry, "on:1");
    let carried = run_with(&archive, &on, &options(1)).await.unwrap();
    assert_eq!(carried.digest, converted.digest);
    assert!(carried.images.is_empty());
    let (repository, Any::Index(index)) = open(&on).await else {
        panic!("no index");
    };
    for entry in &index.manifests {
        for blob in manifest_of(&repository, entry).await.blobs() {
            bytes(&repository, blob).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_fails_leaves_no_archive() {
    let built = Built::new();
    let evil = archive(&[("../../etc/shadow", b"content")]);
    let good = archive(&[("a", b"content")]);
    let host = Platform::host();
    let layers: [(&str, &[u8], &[u8]); 2] = [(TAR, &good, &good), (TAR, &evil, &evil)];
    let image = built.image(false, ("linux", host.architecture()), &layers);
    let dir = built.scratch.dir("to");
    let to = format!("docker-archive:{}", dir.join("image.tar").display());
    run(&built.tag(image), &to.parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_of_an_index_gives_an_image_that_stands_alone() {
    let built = Built::new();
    let from = built.tag(built.index(&entries(&built)));
    let choose = |platform: &str| ConvertOptions {
        platform: PlatformChoice::One(platform.parse().unwrap()),
        ..ConvertOptions::default()
    };
    let to = built.out();
    let converted = run_with(&from, &to, &choose("linux/arm64")).await.unwrap();
    let (_, manifest) = open_manifest(&to).await;
    assert_eq!(manifest.digest(), converted.digest);
    assert_eq!(converted.images[0].platform.to_string(), "linux/arm64");
    let error = run_with(&from, &to, &choose("linux/riscv64"))
        .await
        .unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("linux/riscv64") && text.contains("linux/arm64"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_converted_is_refused_by_name() {
    let built = Built::new();
    let good = archive(&[("a", b"content")]);
    let other = archive(&[("b", b"content")]);
    let evil = archive(&[("../../etc/shadow", b"content")]);
    let host = (
        "linux",
        if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
    );
    let unknown = "application/vnd.unheard.of.layer";
    for (image, expect) in [
        (
            built.image(false, host, &[(TAR, &good, &good), (unknown, &good, &good)]),
            "layer 2",
        ),
        (
            built.image(false, host, &[(unknown, &good, &good)]),
            "unknown media type",
        ),
        (
            built.image(false, host, &[(TAR, &good, &other)]),
            "configuration says",
        ),
        (
            built.image(false, host, &[(TAR, &evil, &evil)]),
            "etc/shadow",
        ),
        (
            built.image(false, host, &[(TAR, &good[..515], &good[..515])]),
            "cut off",
        ),
        (
            built.image(false, ("windows", "amd64"), &[(TAR, &good, &good)]),
            "windows",
        ),
    ] {
        let to = built.out();
        let error = run(&built.tag(image), &to).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(expect), "{text}");
        assert!(client().open(&to).await.is_err() || open_tag(&to).await.is_none());
    }
    // Converted twice.
    let image = built.image(false, host, &[(TAR, &good, &good)]);
    run(&built.tag(image.clone()), &built.out()).await.unwrap();
    let again = layout(&built.scratch.join("twice"));
    let twice = run(&built.out(), &again).await.unwrap();
    assert_eq!(twice.images, []);
    assert_eq!(twice.carried_over, [twice.digest]);
    assert_eq!(open(&again).await.1.digest(), twice.digest);
    compare_with(&again, &built.tag(image)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_ends_early_leaves_the_tag_alone() {
    let dir = images::torture();
    let registry = registry();
    let (from, to) = (layout(&dir), remote(&registry, "early:tag"));
    // At every request that changes something, until one conversion is not disturbed.
    let mut disturbed = 0;
    loop {
        let rule = Rule::new(Fault::Status(403))
            .on_method("PUT")
            .after(disturbed);
        let id = registry.proxy().inject(rule);
        let outcome = run(&from, &to).await;
        let hits = registry.proxy().hits(id);
        registry.proxy().lift(id);
        if hits == 0 {
            outcome.unwrap();
            break;
        }
        outcome.unwrap_err();
        assert!(open_tag(&to).await.is_none(), "after {disturbed} requests");
        disturbed += 1;
    }
    // What was sent before is not sent again: every attempt got one further.
    assert!(disturbed >= 1, "{disturbed}");
    compare_with(&to, &from).await;

    // Dropped in the middle: the tag stands for the old image.
    let digest = open_tag(&to).await.unwrap().digest();
    let mut options = ConvertOptions::default();
    pack(&mut options).batch_bytes = 64 << 10;
    registry
        .proxy()
        .inject(Rule::new(Fault::Hang).on_method("PUT").on_manifests());
    let client = client();
    let conversion = convert(&client, &from, &to, &options, Arc::new(()));
    assert!(
        tokio::time::timeout(Duration::from_secs(5), conversion)
            .await
            .is_err()
    );
    registry.proxy().lift_all();
    assert_eq!(open_tag(&to).await.unwrap().digest(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_in_mid_layer_is_asked_again_or_named() {
    let source = registry();
    let built = Built::new();
    let big: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let big = archive(&[("big", &big)]);
    let host = Platform::host();
    let image = built.image(false, ("linux", host.architecture()), &[(TAR, &big, &big)]);
    let from = remote(&source, "from:latest");
    push_plain(&built.tag(image), &from).await;
    let blob = source.blob_file(&Digest::sha256(&big));
    for (fault, expect) in [
        (Fault::ResetAfter(1_000_000), None),
        (Fault::TruncateAfter(1_000_000), None),
        (Fault::Status(404), Some("404")),
        (Fault::FlipByte(2_000_000), Some("digest")),
    ] {
        let mut rule = Rule::new(fault.clone())
            .on_blobs()
            .on_path(Digest::sha256(&big))
            .on_method("GET");
        if expect.is_none() {
            rule = rule.times(1);
        }
        source.proxy().inject(rule);
        let force = ConvertOptions {
            force: true,
            ..ConvertOptions::default()
        };
        let outcome = run_with(&from, &built.out(), &force).await;
        source.proxy().lift_all();
        match expect {
            None => drop(outcome.unwrap()),
            Some(expect) => {
                let text = chain(&outcome.unwrap_err());
                assert!(text.contains(expect), "{fault:?}: {text}");
            }
        }
    }
    assert!(blob.exists());
}

#[derive(Default)]
struct Told {
    read: AtomicU64,
    pushed: AtomicU64,
    layers: Mutex<BTreeMap<usize, LayerReport>>,
}

impl Progress for Told {
    fn layer_read(&self, _: usize, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn layer_packed(&self, layer: usize, report: &LayerReport) {
        self.layers.lock().unwrap().insert(layer, report.clone());
    }

    fn push_done(&self, _: &Digest, bytes: u64) {
        self.pushed.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_tells_what_was_read_and_sent() {
    let registry = registry();
    let (from, to) = (layout(&images::torture()), remote(&registry, "told:tag"));
    let told = Arc::new(Told::default());
    let options = ConvertOptions {
        platform: PlatformChoice::Host,
        ..ConvertOptions::default()
    };
    let converted = convert(&client(), &from, &to, &options, told.clone())
        .await
        .unwrap();
    let (_, source) = open_manifest(&from).await;
    let stored: u64 = source.layers.iter().map(|layer| layer.size).sum();
    assert_eq!(told.read.load(Ordering::Relaxed), stored);
    let (_, manifest) = open_manifest(&to).await;
    let sent: u64 = manifest.blobs().map(|blob| blob.size).sum();
    assert_eq!(told.pushed.load(Ordering::Relaxed), sent);
    let layers: Vec<_> = told.layers.lock().unwrap().values().cloned().collect();
    assert_eq!(layers, converted.images[0].layers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_becomes_an_image_of_one_layer() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    fs_err::write(root.join("file"), b"content").unwrap();
    fs_err::hard_link(root.join("file"), root.join("link")).unwrap();
    let from: Location = format!("dir:{}", root.display()).parse().unwrap();
    let to = layout(&scratch.join("out"));
    let converted = run(&from, &to).await.unwrap();
    assert_eq!(converted.images[0].platform, Platform::host());
    let (repository, manifest) = open_manifest(&to).await;
    assert_eq!(manifest.layers.len(), 2);
    let config: Document<ImageConfig> = repository.document(&manifest.config).await.unwrap();
    assert_eq!(config.diff_ids.len(), 2);
    if need::root() {
        assert_served(&to, &compare::snapshot_dir(&root)).await;
    }
}

#[tokio::test]
async fn a_conversion_may_move_between_threads() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let scratch = Scratch::new();
    let from: Location = format!("dir:{}/none", scratch.path().display())
        .parse()
        .unwrap();
    let to = layout(&scratch.join("out"));
    let (client, options) = (client(), ConvertOptions::default());
    let conversion = is_send(convert(&client, &from, &to, &options, Arc::new(())));
    assert!(conversion.await.is_err());
    assert!(!scratch.join("out").exists());
}
