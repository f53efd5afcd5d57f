//! Images in registries and layouts, and what they should hold.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use draught_codec::{LayerDecoder, LayerLimits};
use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, ImageConfig, Location, Manifest, Selector};
use draught_packer::{ConvertError, ConvertOptions, Converted, Output, PackOptions, convert};
use draught_source::{Client, Repository, Settings};
use draught_testkit::compare::{self, Applied, Snapshot};
use draught_testkit::{Scratch, TestRegistry, need};
use serde_json::{Value, json};

pub(crate) fn client() -> Client {
    Client::new(Settings {
        attempts: 2,
        retry_delay: Duration::from_millis(1),
        ..Settings::default()
    })
}

pub(crate) fn layout(dir: &Path) -> Location {
    format!("oci:{}:latest", dir.display()).parse().unwrap()
}

pub(crate) fn remote(registry: &TestRegistry, name: &str) -> Location {
    registry.reference(name).parse().unwrap()
}

/// How the image is packed.
pub(crate) fn pack(options: &mut ConvertOptions) -> &mut PackOptions {
    match &mut options.output {
        Output::Nydus(pack) => pack,
        Output::Archives(_) => panic!("it is not packed"),
    }
}

pub(crate) async fn run(from: &Location, to: &Location) -> Result<Converted, ConvertError> {
    run_with(from, to, &ConvertOptions::default()).await
}

pub(crate) async fn run_with(
    from: &Location,
    to: &Location,
    options: &ConvertOptions,
) -> Result<Converted, ConvertError> {
    convert(&client(), from, to, options, Arc::new(())).await
}

/// Opens an image that was written.
pub(crate) async fn open(at: &Location) -> (Repository, Any) {
    let (repository, selector) = client().open(at).await.unwrap();
    let document = repository.manifest(&selector).await.unwrap();
    (repository, document)
}

pub(crate) async fn open_manifest(at: &Location) -> (Repository, Document<Manifest>) {
    match open(at).await {
        (repository, Any::Manifest(manifest)) => (repository, manifest),
        (_, Any::Index(_)) => panic!("an index"),
    }
}

pub(crate) async fn bytes(repository: &Repository, blob: &Descriptor) -> Vec<u8> {
    let stream = repository.blob(blob).await.unwrap();
    stream.into_bytes(1 << 30).await.unwrap().to_vec()
}

/// The error and all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// What the layers of an image hold, unpacked by the book.
pub(crate) async fn expected(at: &Location) -> Snapshot {
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
pub(crate) async fn assert_served(at: &Location, expected: &Snapshot) {
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
pub(crate) fn bootstrap_of(layer: &[u8]) -> Vec<u8> {
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
pub(crate) async fn check_documents(at: &Location, source: &Location, converted: &Converted) {
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

/// A layout with an index of images and other things, all small.
pub(crate) struct Built {
    pub(crate) scratch: Scratch,
    pub(crate) dir: PathBuf,
}

impl Built {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.dir("layout");
        fs_err::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs_err::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { scratch, dir }
    }

    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        fs_err::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub(crate) fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, &serde_json::to_vec(value).unwrap())
    }

    /// An image with these layers: media type, archive, bytes as stored.
    pub(crate) fn image(
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

    pub(crate) fn index(&self, manifests: &[Value]) -> Value {
        let index_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({
            "schemaVersion": 2, "mediaType": index_type, "manifests": manifests,
            "annotations": {"org.opencontainers.image.title": "many"},
        });
        self.json(index_type, &index)
    }

    /// Tags a manifest or index, and gives the image's location.
    pub(crate) fn tag(&self, mut descriptor: Value) -> Location {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs_err::write(
            self.dir.join("index.json"),
            serde_json::to_vec(&index).unwrap(),
        )
        .unwrap();
        layout(&self.dir)
    }

    pub(crate) fn out(&self) -> Location {
        layout(&self.scratch.join("out"))
    }
}

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
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
pub(crate) fn entries(built: &Built) -> [Value; 4] {
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

pub(crate) async fn manifest_of(repository: &Repository, entry: &Descriptor) -> Document<Manifest> {
    let selector = Selector::Digest(entry.digest);
    match repository.manifest(&selector).await.unwrap() {
        Any::Manifest(manifest) => manifest,
        Any::Index(_) => panic!("an index"),
    }
}

pub(crate) async fn open_tag(at: &Location) -> Option<Any> {
    let (repository, selector) = client().open(at).await.ok()?;
    repository.manifest(&selector).await.ok()
}

pub(crate) async fn compare_with(at: &Location, source: &Location) {
    if need::root() {
        assert_served(at, &expected(source).await).await;
    }
}

/// Copies an image as it is.
pub(crate) async fn push_plain(from: &Location, to: &Location) {
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
