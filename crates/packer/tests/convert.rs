//! Whole images, through registries and layouts.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails here fails the test that called it"
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use draught_codec::{LayerDecoder, LayerLimits};
use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, ImageConfig, Location, Manifest, Platform, Selector};
use draught_packer::{
    ConvertError, ConvertOptions, Converted, LayerReport, PackOptions, PlatformChoice, Progress,
    convert,
};
use draught_source::{Client, Repository, Settings};
use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::{Scratch, TestRegistry, images, need, registry};
use serde_json::{Value, json};

fn client() -> Client {
    Client::new(Settings {
        attempts: 2,
        retry_delay: Duration::from_millis(1),
        ..Settings::default()
    })
}

fn layout(dir: &Path) -> Location {
    format!("oci:{}:latest", dir.display()).parse().unwrap()
}

fn remote(registry: &TestRegistry, name: &str) -> Location {
    registry.reference(name).parse().unwrap()
}

async fn run(from: &Location, to: &Location) -> Result<Converted, ConvertError> {
    run_with(from, to, &ConvertOptions::default()).await
}

async fn run_with(
    from: &Location,
    to: &Location,
    options: &ConvertOptions,
) -> Result<Converted, ConvertError> {
    convert(&client(), from, to, options, Arc::new(())).await
}

/// Opens an image that was written.
async fn open(at: &Location) -> (Repository, Any) {
    let (repository, selector) = client().open(at).await.unwrap();
    let document = repository.manifest(&selector).await.unwrap();
    (repository, document)
}

async fn open_manifest(at: &Location) -> (Repository, Document<Manifest>) {
    match open(at).await {
        (repository, Any::Manifest(manifest)) => (repository, manifest),
        (_, Any::Index(_)) => panic!("an index"),
    }
}

async fn bytes(repository: &Repository, blob: &Descriptor) -> Vec<u8> {
    let stream = repository.blob(blob).await.unwrap();
    stream.into_bytes(1 << 30).await.unwrap().to_vec()
}

/// The error and all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// What the layers of an image hold, unpacked by the book.
async fn expected(at: &Location) -> Snapshot {
    let (repository, manifest) = open_manifest(at).await;
    let mut applied = Applied::default();
    for layer in &manifest.layers {
        let stored = bytes(&repository, layer).await;
        let decoder = LayerDecoder::new(&*stored, LayerLimits::default()).unwrap();
        applied.layer(decoder).unwrap();
    }
    applied.snapshot()
}

/// Puts a converted image where nydusd wants it, and compares what it serves.
async fn assert_served(at: &Location, expected: &Snapshot) {
    let Some(nydus) = need::nydus() else { return };
    let scratch = Scratch::new();
    let blobs = scratch.dir("blobs");
    let (repository, manifest) = open_manifest(at).await;
    let mut bootstrap = None;
    for layer in &manifest.layers {
        let stored = bytes(&repository, layer).await;
        if layer
            .annotation("containerd.io/snapshot/nydus-bootstrap")
            .is_some()
        {
            bootstrap = Some(bootstrap_of(&stored));
        } else {
            fs_err::write(blobs.join(layer.digest.hex()), stored).unwrap();
        }
    }
    let path = scratch.join("image.boot");
    fs_err::write(&path, bootstrap.unwrap()).unwrap();
    // It takes no access control list for an attribute; nydusd does.
    let acl: &[u8] = b"system.posix_acl_access";
    if expected
        .values()
        .all(|facts| !facts.xattrs.contains_key(acl))
    {
        nydus.check(&path);
    }
    let dir = scratch.dir("mount");
    let served = nydus
        .serve(&path, &blobs, &scratch.dir("work"), &dir)
        .unwrap();
    let mut got = compare::snapshot_dir(&dir);
    drop(served);
    for (path, facts) in &mut got {
        // For the time 0 it shows the time at which it was started.
        if expected
            .get(path)
            .is_some_and(|expected| expected.mtime == (0, 0))
        {
            facts.mtime = (0, 0);
        }
    }
    compare::assert_same(&got, expected);
}

/// The one file in the last layer.
fn bootstrap_of(layer: &[u8]) -> Vec<u8> {
    let decoder = LayerDecoder::new(layer, LayerLimits::default()).unwrap();
    let mut reader = draught_tar::Reader::new(decoder, draught_tar::Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        if *entry.path == *b"image/image.boot" {
            let mut out = Vec::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                match reader.read_data(&mut buffer).unwrap() {
                    0 => return out,
                    read => out.extend_from_slice(&buffer[..read]),
                }
            }
        }
    }
    panic!("no bootstrap");
}

/// Manifest and configuration are what the contract says.
async fn check_documents(at: &Location, source: &Location, converted: &Converted) {
    let (repository, manifest) = open_manifest(at).await;
    let (_, old) = open_manifest(source).await;
    assert_eq!(manifest.digest(), converted.digest);
    let config: Document<ImageConfig> = repository.document(&manifest.config).await.unwrap();
    assert_eq!(config.diff_ids.len(), manifest.layers.len());
    assert!(manifest.layers.len() <= old.layers.len() + 1);
    let with_layer = config.history.iter().filter(|step| !step.empty_layer);
    assert_eq!(with_layer.count(), manifest.layers.len());
    let source_digest = manifest
        .annotations
        .get("containerd.io/snapshot/nydus-source-digest");
    assert_eq!(source_digest, Some(&old.digest().to_string()));
    let (bootstrap, blobs) = manifest.layers.split_last().unwrap();
    assert_eq!(
        bootstrap.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let mut archive = Vec::new();
    let stored = bytes(&repository, bootstrap).await;
    LayerDecoder::new(&*stored, LayerLimits::default())
        .unwrap()
        .read_to_end(&mut archive)
        .unwrap();
    assert!(config.diff_ids.last().unwrap().verifies(&archive));
    for (blob, diff_id) in blobs.iter().zip(&config.diff_ids) {
        assert_eq!(
            blob.media_type,
            "application/vnd.oci.image.layer.nydus.blob.v1"
        );
        assert_eq!(blob.digest, *diff_id);
    }
}

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
        let mut options = ConvertOptions::default();
        options.pack.threads = 3.try_into().unwrap();
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
        options.pack.batch_bytes = batch_bytes;
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

/// A layout with an index of images and other things, all small.
struct Built {
    scratch: Scratch,
    dir: PathBuf,
}

impl Built {
    fn new() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.dir("layout");
        fs_err::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs_err::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { scratch, dir }
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        fs_err::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, &serde_json::to_vec(value).unwrap())
    }

    /// An image with these layers: media type, archive, bytes as stored.
    fn image(
        &self,
        docker: bool,
        platform: (&str, &str),
        layers: &[(&str, &[u8], &[u8])],
    ) -> Value {
        let ids: Vec<String> = layers
            .iter()
            .map(|(_, archive, _)| Digest::sha256(archive).to_string())
            .collect();
        let config = json!({
            "os": platform.0, "architecture": platform.1,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let (config_type, manifest_type) = if docker {
            (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.distribution.manifest.v2+json",
            )
        } else {
            (
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.manifest.v1+json",
            )
        };
        let layers: Vec<Value> = layers
            .iter()
            .map(|(media_type, _, stored)| self.blob(media_type, stored))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type,
            "config": self.json(config_type, &config), "layers": layers,
        });
        let mut descriptor = self.json(manifest_type, &manifest);
        descriptor["platform"] = json!({"os": platform.0, "architecture": platform.1});
        descriptor
    }

    fn index(&self, manifests: &[Value]) -> Value {
        let index_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({
            "schemaVersion": 2, "mediaType": index_type, "manifests": manifests,
            "annotations": {"org.opencontainers.image.title": "many"},
        });
        self.json(index_type, &index)
    }

    /// Tags a manifest or index, and gives the image's location.
    fn tag(&self, mut descriptor: Value) -> Location {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs_err::write(
            self.dir.join("index.json"),
            serde_json::to_vec(&index).unwrap(),
        )
        .unwrap();
        layout(&self.dir)
    }

    fn out(&self) -> Location {
        layout(&self.scratch.join("out"))
    }
}

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = draught_tar::Writer::new(Vec::new());
    for (path, data) in files {
        let kind = draught_tree::EntryKind::File {
            bytes: data.len() as u64,
            chunks: Box::default(),
        };
        let meta = draught_tree::Meta::default();
        let path = path.as_bytes().into();
        writer
            .entry(&draught_tree::Entry { path, meta, kind })
            .unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

/// Entries of an index with two images, an attestation and an image that is not for Linux.
fn entries(built: &Built) -> [Value; 4] {
    let (amd64, arm64) = (archive(&[("a", b"amd64")]), archive(&[("a", b"arm64")]));
    let first = built.image(false, ("linux", "amd64"), &[(TAR, &amd64, &amd64)]);
    let second = built.image(true, ("linux", "arm64"), &[(TAR, &arm64, &arm64)]);
    let windows = built.image(false, ("windows", "amd64"), &[(TAR, &amd64, &amd64)]);
    let statement = b"a statement that somebody signed";
    let statement = (
        "application/vnd.in-toto+json",
        &statement[..],
        &statement[..],
    );
    let mut attestation = built.image(false, ("unknown", "unknown"), &[statement]);
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": first["digest"],
    });
    [first, attestation, second, windows]
}

async fn manifest_of(repository: &Repository, entry: &Descriptor) -> Document<Manifest> {
    let selector = Selector::Digest(entry.digest);
    match repository.manifest(&selector).await.unwrap() {
        Any::Manifest(manifest) => manifest,
        Any::Index(_) => panic!("an index"),
    }
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
        options.pack.threads = threads.try_into().unwrap();
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
    run(&built.tag(image), &built.out()).await.unwrap();
    let error = run(&built.out(), &layout(&built.scratch.join("twice")))
        .await
        .unwrap_err();
    assert!(chain(&error).contains("nydus image already"), "{error}");
}

async fn open_tag(at: &Location) -> Option<Any> {
    let (repository, selector) = client().open(at).await.ok()?;
    repository.manifest(&selector).await.ok()
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
    options.pack.batch_bytes = 64 << 10;
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

async fn compare_with(at: &Location, source: &Location) {
    if need::root() {
        assert_served(at, &expected(source).await).await;
    }
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
        let outcome = run(&from, &built.out()).await;
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

/// Copies an image as it is.
async fn push_plain(from: &Location, to: &Location) {
    let (source, manifest) = open_manifest(from).await;
    let (to, tag) = client().create(to).await.unwrap();
    for blob in manifest.blobs() {
        let content = bytes(&source, blob).await;
        to.push_blob(blob, &content.into(), &[]).await.unwrap();
    }
    to.put_manifest(Some(&tag), &Any::Manifest(manifest))
        .await
        .unwrap();
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
        pack: PackOptions::default(),
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
