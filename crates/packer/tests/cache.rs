//! Conversions with build caches: what is found is not done again, and what fails is done without.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails here fails the test that called it"
)]

use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor, Document, Index, Location, Manifest};
use draught_packer::{
    CacheLocation, CacheOptions, CacheReport, ConvertOptions, Converted, LayerReport, Output,
    PackOptions, PlatformChoice, Progress, convert,
};
use draught_source::{Client, Repository, Settings};
use draught_testkit::fault_proxy::{Fault, Rule};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::{Scratch, TestRegistry, docker_registry, images, registry};
use draught_tree::{Compression, Entry, EntryKind, Meta};

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

fn in_registry(registry: &TestRegistry, name: &str) -> CacheLocation {
    let text = format!("registry:{}", registry.reference(name));
    text.parse().unwrap()
}

fn in_dir(dir: &Path) -> CacheLocation {
    CacheLocation::Directory(dir.to_owned())
}

fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let blocks = (0_u32..).map(|n| *Digest::blake3(format!("{seed}{n}").as_bytes()).as_bytes());
    blocks.flatten().take(bytes).collect()
}

/// A layer with these files; a name that begins with `.wh.` hides one.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = draught_tar::Writer::new(Vec::new());
    for (path, data) in files {
        let kind = EntryKind::File {
            bytes: data.len() as u64,
            chunks: Box::default(),
        };
        let path = path.as_bytes().into();
        let meta = Meta::default();
        writer.entry(&Entry { path, meta, kind }).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

/// Four layers: the second brings nothing new, the third hides a file of the first, whose content the
/// fourth brings back.
fn four(seed: &str) -> Vec<Vec<u8>> {
    let (a, b) = (noise(seed, 30_000), noise(&format!("{seed} b"), 9_000));
    vec![
        archive(&[("a", &a), ("b", &b), ("empty", b"")]),
        archive(&[("copy", &a)]),
        archive(&[(".wh.a", b""), ("c", &b[..5000])]),
        archive(&[("a-again", &a), ("d", &noise(&format!("{seed} d"), 5_000))]),
    ]
}

fn image(dir: &Path, layers: &[Vec<u8>]) -> Location {
    let layers = layers.iter().map(|archive| Layer {
        archive: Box::new(&archive[..]),
        packing: Packing::Gzip,
    });
    write_layout(dir, layers.collect()).unwrap();
    layout(dir)
}

fn options(caches: &[CacheLocation]) -> ConvertOptions {
    ConvertOptions {
        output: Output::Nydus(PackOptions {
            chunk_bytes: 4 << 10,
            ..PackOptions::default()
        }),
        cache: CacheOptions {
            locations: caches.to_vec(),
            ..CacheOptions::default()
        },
        ..ConvertOptions::default()
    }
}

/// How the image is packed.
fn pack(options: &mut ConvertOptions) -> &mut PackOptions {
    match &mut options.output {
        Output::Nydus(pack) => pack,
        Output::Archives(_) => panic!("it is not packed"),
    }
}

async fn run(from: &Location, to: &Location, caches: &[CacheLocation]) -> Converted {
    run_with(from, to, &options(caches)).await
}

async fn run_with(from: &Location, to: &Location, options: &ConvertOptions) -> Converted {
    let converted = convert(&client(), from, to, options, Arc::new(())).await;
    converted.unwrap()
}

fn report(converted: &Converted) -> &CacheReport {
    converted.cache.as_ref().unwrap()
}

#[track_caller]
fn assert_counts(converted: &Converted, hits: usize, misses: usize) {
    let report = report(converted);
    assert_eq!((report.hits, report.misses), (hits, misses), "{report:?}");
    let cached = converted.images.iter().flat_map(|image| &image.layers);
    assert_eq!(cached.filter(|layer| layer.cached).count(), hits);
}

#[track_caller]
fn assert_no_failures(converted: &Converted) {
    let report = report(converted);
    let has_none = report.caches.iter().all(|cache| cache.failures.is_empty());
    assert!(has_none, "{report:?}");
}

/// The words of all warnings.
fn failures(converted: &Converted) -> String {
    let caches = report(converted).caches.iter();
    let failures: Vec<_> = caches.flat_map(|cache| cache.failures.clone()).collect();
    failures.join("\n")
}

async fn open(at: &Location) -> (Repository, Document<Manifest>) {
    let (repository, selector) = client().open(at).await.unwrap();
    match repository.manifest(&selector).await.unwrap() {
        Any::Manifest(manifest) => (repository, manifest),
        Any::Index(_) => panic!("an index"),
    }
}

async fn bytes(repository: &Repository, blob: &Descriptor) -> Vec<u8> {
    let stream = repository.blob(blob).await.unwrap();
    stream.into_bytes(1 << 30).await.unwrap().to_vec()
}

/// The image is there with all its blobs, and is what a conversion without a cache makes.
async fn assert_same_image(at: &Location, converted: &Converted, plain: &Converted) {
    assert_eq!(converted.digest, plain.digest);
    let (repository, manifest) = open(at).await;
    assert_eq!(manifest.digest(), plain.digest);
    for blob in manifest.blobs() {
        bytes(&repository, blob).await;
    }
    let without = |converted: &Converted| {
        let mut layers = converted.images[0].layers.clone();
        for layer in &mut layers {
            layer.cached = false;
        }
        layers
    };
    assert_eq!(without(converted), without(plain));
    assert_eq!(converted.images[0].blobs, plain.images[0].blobs);
}

/// Copies an image as it is.
async fn push_plain(from: &Location, to: &Location) {
    let (source, manifest) = open(from).await;
    let (to, tag) = client().create(to).await.unwrap();
    for blob in manifest.blobs() {
        let content = bytes(&source, blob).await;
        to.push_blob(blob, &content.into(), &[]).await.unwrap();
    }
    let manifest = Any::Manifest(manifest);
    to.put_manifest(Some(&tag), &manifest).await.unwrap();
}

/// Changes the manifest of a cache.
async fn edit(at: &Location, change: impl FnOnce(&mut Manifest)) {
    let (_, manifest) = open(at).await;
    let mut manifest = manifest.content().clone();
    change(&mut manifest);
    let (repository, tag) = client().create(at).await.unwrap();
    let manifest = Any::Manifest(Document::write(manifest));
    repository
        .put_manifest(Some(&tag), &manifest)
        .await
        .unwrap();
}

async fn delete(at: &Location, blob: &Digest) {
    let (repository, _) = client().open(at).await.unwrap();
    repository.delete_blob(blob).await.unwrap();
}

fn is_record(layer: &Descriptor) -> bool {
    layer.annotation("vnd.draught.cache.key").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_conversion_is_all_hits_and_moves_no_layer() {
    let scratch = Scratch::new();
    let (source, target, other) = (registry(), registry(), registry());
    let from = remote(&source, "from:1");
    push_plain(&image(&scratch.join("image"), &four("x")), &from).await;
    let (_, old) = open(&from).await;
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    assert!(plain.cache.is_none());
    for (name, caches) in [
        ("dir", vec![in_dir(&scratch.join("cache"))]),
        ("same", vec![in_registry(&target, "cache:of")]),
        ("other", vec![in_registry(&other, "cache")]),
        (
            "two",
            vec![in_registry(&other, "two:1"), in_dir(&scratch.join("two"))],
        ),
    ] {
        let to = remote(&target, &format!("{name}:lazy"));
        let first = run(&from, &to, &caches).await;
        assert_counts(&first, 0, 4);
        assert_no_failures(&first);
        assert_same_image(&to, &first, &plain).await;
        for cache in &report(&first).caches {
            assert_eq!((cache.exported, cache.layers), (Some(4), Some(4)), "{name}");
        }
        let pulled = source.proxy().counts();
        let (sent, cached) = (target.proxy().counts(), other.proxy().counts());
        let second = run(&from, &to, &caches).await;
        assert_counts(&second, 4, 0);
        assert_no_failures(&second);
        assert_same_image(&to, &second, &plain).await;
        let pulled = source.proxy().counts().since(&pulled);
        for layer in &old.layers {
            let of_layer = pulled.matching("", &layer.digest.to_string());
            assert_eq!(of_layer.requests, 0, "{name}: {pulled:?}");
        }
        let sent = target.proxy().counts().since(&sent);
        assert_eq!(sent.matching("POST", "").requests, 0, "{name}: {sent:?}");
        assert_eq!(sent.matching("PUT", "").requests, 1, "{name}: {sent:?}");
        let cached = other.proxy().counts().since(&cached);
        for method in ["POST", "PUT"] {
            assert_eq!(
                cached.matching(method, "").requests,
                0,
                "{name}: {cached:?}"
            );
        }

        // Elsewhere, where none of the blobs is.
        let elsewhere = layout(&scratch.join(format!("elsewhere-{name}")));
        let third = run(&from, &elsewhere, &caches).await;
        assert_counts(&third, 4, 0);
        assert_same_image(&elsewhere, &third, &plain).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_blobs_are_mounted_across_repositories_of_a_registry() {
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let target = registry();
    let caches = [in_registry(&target, "cache:1")];
    run(&from, &remote(&target, "first:1"), &caches).await;
    let before = target.proxy().counts();
    let second = run(&from, &remote(&target, "second/one:1"), &caches).await;
    assert_counts(&second, 4, 0);
    let sent = target.proxy().counts().since(&before);
    let blobs = &second.images[0].blobs;
    let blob_bytes: u64 = blobs.iter().map(|(_, bytes)| bytes).sum();
    let small = sent.sum(|method, path| method == "PUT" && path.contains("/blobs/"));
    assert!(small.received_bytes < blob_bytes / 2, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_used_up_to_the_first_hole_and_loses_no_blob() {
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    for hole in 0..4 {
        let registry = registry();
        let caches = [in_registry(&registry, "cache:1")];
        run(&from, &remote(&registry, "first:1"), &caches).await;
        // The record alone: the blob is still named.
        edit(&remote(&registry, "cache:1"), |manifest| {
            let records = manifest.layers.iter().enumerate();
            let mut records = records.filter(|(_, layer)| is_record(layer));
            let (at, _) = records.nth(hole).unwrap();
            manifest.layers.remove(at);
        })
        .await;
        let to = layout(&scratch.join(format!("to-{hole}")));
        let converted = run(&from, &to, &caches).await;
        assert_counts(&converted, hole, 4 - hole);
        assert_same_image(&to, &converted, &plain).await;
        // The hole is filled.
        let again = run(&from, &to, &caches).await;
        assert_counts(&again, 4, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_options_and_other_parents_miss() {
    let scratch = Scratch::new();
    let layers = four("x");
    let from = image(&scratch.join("image"), &layers);
    let caches = [in_dir(&scratch.join("cache"))];
    let to = layout(&scratch.join("to"));
    run(&from, &to, &caches).await;
    let changes: [fn(&mut PackOptions); 7] = [
        |pack| pack.compression = Compression::Lz4Block,
        |pack| pack.compression = Compression::None,
        |pack| pack.level = 9,
        |pack| pack.chunk_bytes = 8 << 10,
        |pack| pack.batch_bytes = 4 << 10,
        |pack| pack.digester = draught_digest::Algorithm::Sha256,
        |pack| pack.layer_bootstraps = false,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut options = options(&caches);
        change(pack(&mut options));
        let first = run_with(&from, &to, &options).await;
        assert_counts(&first, 0, 4);
        assert_counts(&run_with(&from, &to, &options).await, 4, 0);
        options.cache.locations.clear();
        let plain = run_with(&from, &layout(&scratch.join("plain")), &options).await;
        assert_eq!(first.digest, plain.digest, "change {at}");
    }
    // What only the bootstrap of the image depends on.
    let mut other = options(&caches);
    pack(&mut other).prefetch = vec![b"b".to_vec()];
    pack(&mut other).threads = 3.try_into().unwrap();
    let prefetching = run_with(&from, &to, &other).await;
    assert_counts(&prefetching, 4, 0);

    let mut upside_down = layers.clone();
    upside_down.swap(0, 1);
    let swapped = image(&scratch.join("swapped"), &upside_down);
    assert_counts(&run(&swapped, &to, &caches).await, 0, 4);
    let longer = [&layers[..2], &[archive(&[("new", b"new")])], &layers[2..]].concat();
    let longer = image(&scratch.join("longer"), &longer);
    let plain = run_with(&longer, &layout(&scratch.join("plain")), &options(&[])).await;
    let converted = run(&longer, &to, &caches).await;
    assert_counts(&converted, 2, 3);
    assert_same_image(&to, &converted, &plain).await;
}

/// Lets conversions end at the same time: each waits until all have packed their fourth layer.
struct Together(Barrier);

impl Progress for Together {
    fn layer_packed(&self, layer: usize, _: &LayerReport) {
        if layer == 3 {
            self.0.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn converters_on_one_cache_at_the_same_time_lose_no_record() {
    let scratch = Scratch::new();
    let registry = registry();
    let images: Vec<Location> = ["p", "q", "r"]
        .iter()
        .map(|seed| image(&scratch.join(seed), &four(seed)))
        .collect();
    // Everybody has read the tag before anybody has written it.
    let slow = Rule::new(Fault::Delay(Duration::from_millis(400))).on_method("PUT");
    let slow = registry.proxy().inject(slow.on_path("/cache/manifests/"));
    for cache in [
        in_registry(&registry, "cache:1"),
        in_dir(&scratch.join("cache")),
    ] {
        let together = Arc::new(Together(Barrier::new(images.len())));
        let options = options(std::slice::from_ref(&cache));
        let conversions = images.iter().enumerate().map(|(at, from)| {
            let to = layout(&scratch.join(format!("to-{at}")));
            let (options, together) = (&options, Arc::clone(&together));
            async move { convert(&client(), from, &to, options, together).await }
        });
        for converted in futures_util::future::join_all(conversions).await {
            let converted = converted.unwrap();
            assert_counts(&converted, 0, 4);
            assert_no_failures(&converted);
        }
        let written = registry.proxy().hits(slow);
        assert!(written > 3, "nobody wrote over anybody");
        for from in &images {
            let again = run(
                from,
                &layout(&scratch.join("again")),
                std::slice::from_ref(&cache),
            )
            .await;
            assert_counts(&again, 4, 0);
            assert_eq!(report(&again).caches[0].layers, Some(12));
        }
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn layer_cached(&self, layer: usize, _: &LayerReport) {
        self.0.lock().unwrap().push(format!("cached {layer}"));
    }

    fn cache_failed(&self, cache: &str, why: &str) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{cache} failed: {why}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_blob_that_is_gone_is_packed_again_with_a_warning() {
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    let cache = registry();
    let caches = [in_registry(&cache, "cache:1")];
    run(&from, &layout(&scratch.join("first")), &caches).await;
    let (gone, _) = plain.images[0].blobs[1];
    delete(&remote(&cache, "cache:1"), &gone).await;
    let to = layout(&scratch.join("second"));
    let told = Arc::new(Told::default());
    let second = convert(&client(), &from, &to, &options(&caches), told.clone()).await;
    let second = second.unwrap();
    assert_counts(&second, 2, 2);
    assert!(failures(&second).contains(&gone.to_string()), "{second:?}");
    assert_same_image(&to, &second, &plain).await;
    let told = told.0.lock().unwrap().join("\n");
    assert!(
        told.contains("cached 1") && told.contains(" failed: "),
        "{told}"
    );

    let third = run(&from, &layout(&scratch.join("third")), &caches).await;
    assert_counts(&third, 4, 0);
    assert_no_failures(&third);

    // Blobs of others that are gone do not keep anybody from writing.
    delete(&remote(&cache, "cache:1"), &gone).await;
    let other = image(&scratch.join("other"), &four("y"));
    let other = run(&other, &layout(&scratch.join("fourth")), &caches).await;
    assert_no_failures(&other);
    assert!(report(&other).caches[0].exported == Some(4), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_the_source_lost_come_from_the_cache() {
    let (registry, scratch) = (registry(), Scratch::new());
    let from = remote(&registry, "from:1");
    push_plain(&image(&scratch.join("image"), &four("x")), &from).await;
    let caches = [in_dir(&scratch.join("cache"))];
    let first = run(&from, &layout(&scratch.join("first")), &caches).await;
    for layer in &open(&from).await.1.layers {
        delete(&from, &layer.digest).await;
    }
    let to = layout(&scratch.join("second"));
    let second = run(&from, &to, &caches).await;
    assert_counts(&second, 4, 0);
    assert_no_failures(&second);
    assert_same_image(&to, &second, &first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_of_no_use_is_a_miss() {
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    let cache = registry();
    let (at, caches) = (remote(&cache, "cache:1"), [in_registry(&cache, "cache:1")]);
    for bad in ["", "drlayer1", "another"] {
        run(&from, &layout(&scratch.join("first")), &caches).await;
        // Well-formed as far as the registry can see.
        let (repository, tag) = client().create(&at).await.unwrap();
        let (_, manifest) = open(&at).await;
        let records: Vec<Descriptor> = manifest
            .layers
            .iter()
            .filter(|layer| is_record(layer))
            .cloned()
            .collect();
        // The record of the layer below is a good one, but not of this layer.
        let content = match bad {
            "another" => bytes(&repository, &records[1]).await,
            bad => bad.as_bytes().to_vec(),
        };
        let mut edited = manifest.content().clone();
        for layer in &mut edited.layers {
            if layer.digest == records[2].digest {
                layer.digest = Digest::sha256(&content);
                layer.size = content.len() as u64;
                let payload = content.clone().into();
                repository.push_blob(layer, &payload, &[]).await.unwrap();
            }
        }
        let edited = Any::Manifest(Document::write(edited));
        repository.put_manifest(Some(&tag), &edited).await.unwrap();
        let to = layout(&scratch.join("second"));
        let converted = run(&from, &to, &caches).await;
        assert_counts(&converted, 2, 2);
        assert!(failures(&converted).contains("record"), "{bad}");
        assert_same_image(&to, &converted, &plain).await;
        // It has been replaced.
        assert_counts(&run(&from, &to, &caches).await, 4, 0);
    }
    // Damaged on its way.
    let (_, manifest) = open(&at).await;
    let record = manifest.layers.iter().rfind(|layer| is_record(layer));
    let rule = Rule::new(Fault::FlipByte(20)).on_blobs();
    cache.proxy().inject(rule.on_path(record.unwrap().digest));
    let to = layout(&scratch.join("third"));
    let converted = run(&from, &to, &caches).await;
    assert_counts(&converted, 3, 1);
    assert!(!failures(&converted).is_empty());
    assert_same_image(&to, &converted, &plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_cache_is_left_alone() {
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    let registry = registry();
    let taken = remote(&registry, "taken:1");
    push_plain(&from, &taken).await;
    let (_, before) = open(&taken).await;
    let to = remote(&registry, "to:1");
    let file = scratch.join("file");
    fs_err::write(&file, b"no directory").unwrap();
    for (cache, expect) in [
        (in_registry(&registry, "taken:1"), "left alone"),
        (in_dir(&scratch.join("image")), "left alone"),
        (in_dir(&file), "file"),
        (in_registry(&registry, "to:1"), "image itself"),
    ] {
        let converted = run(&from, &to, &[cache]).await;
        assert!(failures(&converted).contains(expect), "{converted:?}");
        assert_counts(&converted, 0, 4);
        assert_same_image(&to, &converted, &plain).await;
        assert_eq!(report(&converted).caches[0].exported, None);
    }
    assert_eq!(open(&taken).await.1.digest(), before.digest());
    run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    assert_eq!(open(&from).await.1.digest(), before.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_nothing_or_is_away_fails_no_conversion() {
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    let to = layout(&scratch.join("to"));
    let cache = registry();
    let caches = [in_registry(&cache, "cache:1")];
    for (status, methods) in [
        (403, &["POST", "PUT"][..]),
        (405, &["POST", "PUT"]),
        (405, &["PUT"]),
        (500, &["GET"]),
        (403, &["GET", "HEAD"]),
    ] {
        for method in methods {
            let rule = Rule::new(Fault::Status(status)).on_method(method);
            cache.proxy().inject(rule.on_path("/cache/"));
        }
        let converted = run(&from, &to, &caches).await;
        assert_counts(&converted, 0, 4);
        assert_same_image(&to, &converted, &plain).await;
        assert_eq!(report(&converted).caches[0].exported, None);
        assert!(failures(&converted).contains(&status.to_string()));
        cache.proxy().lift_all();
    }
    // What is there already can be read where nothing can be written.
    run(&from, &to, &caches).await;
    for method in ["POST", "PUT"] {
        cache
            .proxy()
            .inject(Rule::new(Fault::Status(403)).on_method(method));
    }
    let converted = run(&from, &layout(&scratch.join("new")), &caches).await;
    assert_counts(&converted, 4, 0);
    assert_no_failures(&converted);
    cache.proxy().lift_all();

    // Every request that fails is one that can fail.
    for failing in 0.. {
        let rule = Rule::new(Fault::Status(400))
            .on_path("/cache/")
            .after(failing);
        let id = cache.proxy().inject(rule);
        let to = layout(&scratch.join(format!("failing-{failing}")));
        let converted = run(&from, &to, &caches).await;
        assert_same_image(&to, &converted, &plain).await;
        let hits = cache.proxy().hits(id);
        cache.proxy().lift(id);
        if hits == 0 {
            assert_counts(&converted, 4, 0);
            break;
        }
        assert!(failing < 50, "{converted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_used_last_stay_and_the_order_is_kept_from_run_to_run() {
    let scratch = Scratch::new();
    let one = |seed: &str| vec![archive(&[(seed, &noise(seed, 9_000))])];
    let two = [one("a"), one("aa")].concat();
    let a = image(&scratch.join("a"), &two);
    let b = image(&scratch.join("b"), &one("b"));
    let c = image(&scratch.join("c"), &one("c"));
    let registry = registry();
    let dir = scratch.join("cache");
    for cache in [in_dir(&dir), in_registry(&registry, "cache:1")] {
        let mut options = options(&[cache]);
        options.cache.layers_max = 3;
        let to = layout(&scratch.join("to"));
        for (from, hits, misses) in [
            (&a, 0, 2),
            (&b, 0, 1),
            // a counts as used now: b is the oldest.
            (&a, 2, 0),
            (&c, 0, 1),
            (&a, 2, 0),
            // Takes the place of c.
            (&b, 0, 1),
            (&c, 0, 1),
            // Of a, the upper layer went first.
            (&a, 1, 1),
        ] {
            let converted = run_with(from, &to, &options).await;
            assert_counts(&converted, hits, misses);
            assert_no_failures(&converted);
            assert!(report(&converted).caches[0].layers.unwrap() <= 3);
        }
    }
    // Two for each layer, and configuration and manifest: what fell out is gone.
    let blobs = fs_err::read_dir(dir.join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 2 * 3 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_can_carry_its_cache_itself() {
    let scratch = Scratch::new();
    let layers = four("x");
    let from = image(&scratch.join("image"), &layers);
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    let (_, expected) = open(&layout(&scratch.join("plain"))).await;
    let ours = registry();
    let docker = docker_registry();
    let targets = [
        Some(remote(&ours, "to:1")),
        Some(layout(&scratch.join("to"))),
        docker.as_ref().map(|docker| remote(docker, "to:1")),
    ];
    for to in targets.into_iter().flatten() {
        let first = run(&from, &to, &[CacheLocation::Inline]).await;
        assert_counts(&first, 0, 4);
        assert_no_failures(&first);
        let (repository, manifest) = open(&to).await;
        assert_eq!(manifest.layers, expected.layers);
        assert_eq!(manifest.config, expected.config);
        assert_eq!(first.images[0].blobs, plain.images[0].blobs);
        let about = repository.referrers(&manifest.digest()).await.unwrap();
        assert_eq!(about.len(), 1, "{to}");
        let second = run(&from, &to, &[CacheLocation::Inline]).await;
        assert_counts(&second, 4, 0);
        assert_eq!(second.digest, first.digest);
        let longer = [&layers[..], &[archive(&[("new", b"new")])]].concat();
        let longer = image(&scratch.join("longer"), &longer);
        let third = run(&longer, &to, &[CacheLocation::Inline]).await;
        assert_counts(&third, 4, 1);
        assert_no_failures(&third);
    }
    let archive = format!("docker-archive:{}", scratch.join("to.tar").display());
    let caches = [CacheLocation::Inline, in_dir(&scratch.join("cache"))];
    for hits in [0, 4] {
        let converted = run(&from, &archive.parse().unwrap(), &caches).await;
        assert!(failures(&converted).contains("docker archive"));
        assert_counts(&converted, hits, 4 - hits);
        assert_eq!(converted.digest, plain.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_an_index_share_a_cache() {
    let scratch = Scratch::new();
    let source = registry();
    let base = four("x");
    let mut entries = Vec::new();
    for (name, platform) in [("a", "linux/amd64"), ("b", "linux/arm64")] {
        let own = archive(&[(name, &noise(name, 7_000))]);
        let from = image(&scratch.join(name), &[&base[..], &[own]].concat());
        push_plain(&from, &remote(&source, &format!("from:{name}"))).await;
        let descriptor = open(&from).await.1.descriptor();
        entries.push(descriptor.with_platform(platform.parse().unwrap()));
    }
    let from = remote(&source, "from:all");
    let (repository, tag) = client().create(&from).await.unwrap();
    let index = Any::Index(Document::write(Index::new(entries)));
    repository.put_manifest(Some(&tag), &index).await.unwrap();
    let all = |caches: &[CacheLocation]| ConvertOptions {
        platform: PlatformChoice::All,
        ..options(caches)
    };
    let to = layout(&scratch.join("plain"));
    let plain = run_with(&from, &to, &all(&[])).await;
    for cache in [in_dir(&scratch.join("cache")), CacheLocation::Inline] {
        let to = layout(&scratch.join(format!("to-{cache}").replace('/', "-")));
        let first = run_with(&from, &to, &all(std::slice::from_ref(&cache))).await;
        // The second image finds what the first one put.
        assert_counts(&first, 4, 6);
        assert_eq!(report(&first).caches[0].layers, Some(6));
        let second = run_with(&from, &to, &all(std::slice::from_ref(&cache))).await;
        assert_counts(&second, 10, 0);
        assert_no_failures(&second);
        assert_eq!(first.digest, second.digest);
        if cache != CacheLocation::Inline {
            assert_eq!(first.digest, plain.digest);
            assert_eq!(report(&second).caches[0].layers, Some(6));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_registry_keeps_a_cache() {
    let Some(docker) = docker_registry() else {
        return;
    };
    let scratch = Scratch::new();
    let from = image(&scratch.join("image"), &four("x"));
    let caches = [in_registry(&docker, "cache:1")];
    let first = run(&from, &remote(&docker, "first:1"), &caches).await;
    assert_no_failures(&first);
    let second = run(&from, &remote(&docker, "second:1"), &caches).await;
    assert_counts(&second, 4, 0);
    assert_no_failures(&second);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_torture_image_comes_out_of_a_cache_as_it_went_in() {
    let scratch = Scratch::new();
    let from = layout(&images::torture());
    let plain = run_with(&from, &layout(&scratch.join("plain")), &options(&[])).await;
    let caches = [in_dir(&scratch.join("cache"))];
    let to = layout(&scratch.join("to"));
    let first = run(&from, &to, &caches).await;
    let second = run(&from, &layout(&scratch.join("second")), &caches).await;
    assert_same_image(&to, &first, &plain).await;
    assert_same_image(&layout(&scratch.join("second")), &second, &plain).await;
    assert_eq!(report(&second).misses, 0);
    assert_eq!(
        second.images[0].xattrs_left_out,
        plain.images[0].xattrs_left_out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_converted_without_a_cache_and_told_so() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    fs_err::write(root.join("file"), b"content").unwrap();
    let from: Location = format!("dir:{}", root.display()).parse().unwrap();
    let caches = [in_dir(&scratch.join("cache"))];
    let converted = run(&from, &layout(&scratch.join("to")), &caches).await;
    assert!(failures(&converted).contains("directory"), "{converted:?}");
    assert!(!scratch.join("cache").exists());
}
