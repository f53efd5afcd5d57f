//! Every format from every other.

use draught_importer::{Format, detect};
use draught_oci::{Location, Manifest};
use draught_packer::{
    ArchiveFormat, ArchiveOptions, CacheLocation, ConvertOptions, Converted, EstargzOptions,
    Output, PackOptions, open_image,
};
use draught_source::Blobs;
use draught_testkit::compare::{self, Snapshot};
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_testkit::{Scratch, images, need, registry};

use crate::support::*;

fn archives(format: ArchiveFormat) -> ConvertOptions {
    ConvertOptions {
        output: Output::Archives(ArchiveOptions::new(format)),
        ..ConvertOptions::default()
    }
}

fn gzip() -> ConvertOptions {
    archives(ArchiveFormat::Gzip { level: 6 })
}

fn zstd() -> ConvertOptions {
    archives(ArchiveFormat::Zstd { level: 3 })
}

fn estargz(pack_bytes: u64) -> ConvertOptions {
    archives(ArchiveFormat::Estargz(EstargzOptions {
        pack_bytes,
        chunk_bytes: 64 << 10,
        ..EstargzOptions::default()
    }))
}

fn nydus() -> ConvertOptions {
    ConvertOptions::default()
}

async fn become_of(from: &Location, to: &Location, options: &ConvertOptions) -> Converted {
    let converted = run_with(from, to, options).await;
    converted.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// What an unpacker makes of layers, without what eStargz adds to each.
async fn unpacked(at: &Location) -> Snapshot {
    let mut all = expected(at).await;
    for own in [
        "/stargz.index.json",
        "/.prefetch.landmark",
        "/.no.prefetch.landmark",
    ] {
        all.remove(own.as_bytes());
    }
    all
}

/// Archives don't have sockets, and the root has the attributes of an entry that not every layer has.
fn expressible(mut all: Snapshot) -> Snapshot {
    all.retain(|_, facts| facts.mode & 0o170_000 != 0o140_000);
    all
}

async fn assert_unpacks_to(at: &Location, wanted: &Snapshot, what: &str) {
    let got = unpacked(at).await;
    let lines = compare::diff(&got, wanted);
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

async fn manifest_at(at: &Location) -> Manifest {
    open_manifest(at).await.1.content().clone()
}

fn named(format: &str) -> ConvertOptions {
    match format {
        "estargz" => estargz(0),
        "packed" => estargz(256 << 10),
        "gzip" => gzip(),
        "zstd" => zstd(),
        _ => nydus(),
    }
}

/// Plain layers become one format, and that another; the files stay what they are.
async fn there_and_on(from: &Location, steps: &[(&str, &str)]) {
    let scratch = Scratch::new();
    let at = |name: &str| layout(&scratch.join(name));
    let wanted = expressible(expected(from).await);
    for (first, then) in steps {
        if !scratch.join(first).exists() {
            become_of(from, &at(first), &named(first)).await;
            if *first != "nydus" {
                assert_unpacks_to(&at(first), &wanted, first).await;
            }
        }
        let place = format!("{first}-{then}");
        become_of(&at(first), &at(&place), &named(then)).await;
        let manifest = manifest_at(&at(&place)).await;
        match (*then, detect(&manifest)) {
            ("nydus", Format::Nydus { .. }) | ("gzip" | "zstd", Format::Plain(_)) => {}
            (_, format) => panic!("{place}: {}", format.name()),
        }
        if *then == "nydus" {
            if need::root() {
                assert_served(&at(&place), &expected(from).await).await;
            }
            continue;
        }
        assert_unpacks_to(&at(&place), &wanted, &place).await;
        let own = expected(&at(&place)).await;
        assert!(!own.contains_key(&b"/stargz.index.json"[..]), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_becomes_every_other_and_the_files_stay_what_they_are() {
    let scratch = Scratch::new();
    let dir = scratch.dir("source");
    let layers: Vec<Vec<u8>> = vec![
        archive(&[
            ("a", &[7; 300_000]),
            ("dir/b", b"content"),
            ("dir/gone", b"not for long"),
            ("empty", b""),
        ]),
        archive(&[("dir/.wh.gone", b""), ("dir/c", &[1; 70_000])]),
        archive(&[("d", b"content")]),
    ];
    let layers = layers
        .iter()
        .zip([Packing::Gzip, Packing::Zstd, Packing::Tar]);
    let layers = layers.map(|(archive, packing)| Layer {
        archive: Box::new(&archive[..]),
        packing,
    });
    write_layout(&dir, layers.collect()).unwrap();
    let formats = ["estargz", "packed", "gzip", "zstd", "nydus"];
    let all = formats.iter().flat_map(|first| {
        let then = ["gzip", "zstd", "nydus"].iter();
        then.map(move |then| (*first, *then))
    });
    there_and_on(&layout(&dir), &all.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_image_becomes_every_format() {
    let Some(dir) = images::python() else { return };
    let steps = [("estargz", "nydus"), ("packed", "zstd"), ("nydus", "gzip")];
    there_and_on(&layout(&dir), &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn estargz_is_read_lazily_and_holds_the_same() {
    let Some(dir) = images::minbase() else { return };
    let scratch = Scratch::new();
    for (name, pack_bytes) in [("one", 0), ("packed", 256 << 10)] {
        let at = layout(&scratch.join(name));
        become_of(&layout(&dir), &at, &estargz(pack_bytes)).await;
        let (repository, manifest) = open_manifest(&at).await;
        let Format::Estargz { layers } = detect(&manifest) else {
            panic!("no eStargz");
        };
        let uncompressed = "io.containers.estargz.uncompressed-size";
        assert!(
            layers
                .iter()
                .all(|(layer, _)| layer.annotation(uncompressed).is_some())
        );
        let opened = open_image(&Blobs::new(repository.clone(), None), &manifest)
            .await
            .unwrap();
        let files = opened.tree.walk().count();
        assert_eq!(files, expected(&layout(&dir)).await.len(), "{name}");
        // The same on any number of threads.
        let mut options = estargz(pack_bytes);
        if let Output::Archives(archives) = &mut options.output {
            archives.threads = 3.try_into().unwrap();
        }
        let again = layout(&scratch.join(format!("{name}-again")));
        become_of(&layout(&dir), &again, &options).await;
        assert_eq!(open_manifest(&again).await.1.digest(), manifest.digest());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_s_files_come_first() {
    let Some(dir) = images::python() else { return };
    let scratch = Scratch::new();
    let at = layout(&scratch.join("out"));
    let prefetch = vec![b"usr/bin/python3.11".to_vec(), b"etc/passwd".to_vec()];
    let options = archives(ArchiveFormat::Estargz(EstargzOptions {
        prefetch: prefetch.clone(),
        ..EstargzOptions::default()
    }));
    become_of(&layout(&dir), &at, &options).await;
    let (repository, manifest) = open_manifest(&at).await;
    let opened = open_image(&Blobs::new(repository.clone(), None), &manifest)
        .await
        .unwrap();
    let wanted: Vec<_> = prefetch
        .iter()
        .map(|path| opened.tree.lookup(path).unwrap())
        .collect();
    for node in wanted {
        assert!(opened.prefetch.contains(&node), "{:?}", opened.prefetch);
    }
    assert_unpacks_to(
        &at,
        &expressible(expected(&layout(&dir)).await),
        "reordered",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_have_the_format_are_neither_read_nor_written() {
    let registry = registry();
    let scratch = Scratch::new();
    let dir = scratch.dir("source");
    let content = archive(&[("a", &[7; 300_000])]);
    let layer = Layer {
        archive: Box::new(&content[..]),
        packing: Packing::Gzip,
    };
    write_layout(&dir, vec![layer]).unwrap();
    let from = remote(&registry, "from:latest");
    push_plain(&layout(&dir), &from).await;
    let lazy = remote(&registry, "lazy:latest");
    become_of(&from, &lazy, &estargz(0)).await;
    for (from, options) in [(&from, gzip()), (&lazy, estargz(1 << 20)), (&lazy, nydus())] {
        let to = remote(&registry, "as-it-is:latest");
        if options.output == nydus().output {
            become_of(from, &remote(&registry, "first:latest"), &options).await;
        }
        let from = match options.output {
            Output::Nydus(_) => remote(&registry, "first:latest"),
            Output::Archives(_) => from.clone(),
        };
        let before = registry.proxy().counts();
        become_of(&from, &to, &options).await;
        let made = registry.proxy().counts().since(&before);
        let layer = manifest_at(&to).await.layers[0].digest;
        let read = made.matching("GET", &layer.to_string());
        assert_eq!(read.requests, 0, "{made:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_layers_of_archives_do_not_depend_on_what_lies_below() {
    let scratch = Scratch::new();
    let cache: CacheLocation = format!("dir:{}", scratch.join("cache").display())
        .parse()
        .unwrap();
    let contents = ["a", "b", "c"].map(|name| archive(&[(name, name.repeat(50_000).as_bytes())]));
    let image = |name: &str, layers: &[usize]| {
        let dir = scratch.dir(name);
        let layers = layers.iter().map(|at| Layer {
            archive: Box::new(&contents[*at][..]),
            packing: Packing::Gzip,
        });
        write_layout(&dir, layers.collect()).unwrap();
        layout(&dir)
    };
    let options = |mut options: ConvertOptions| {
        options.cache.locations = vec![cache.clone()];
        options
    };
    for (what, options) in [("eStargz", options(estargz(0))), ("zstd", options(zstd()))] {
        let first = image(&format!("first {what}"), &[0, 1]);
        let to = layout(&scratch.join(format!("out {what}")));
        let report = become_of(&first, &to, &options).await.cache.unwrap();
        assert_eq!((report.hits, report.misses), (0, 2), "{what}");
        let other = image(&format!("other {what}"), &[2, 1, 0]);
        let converted = become_of(&other, &to, &options).await;
        let report = converted.cache.unwrap();
        assert_eq!((report.hits, report.misses), (2, 1), "{what}: {report:?}");
        let cached: Vec<bool> = converted.images[0]
            .layers
            .iter()
            .map(|it| it.cached)
            .collect();
        assert_eq!(cached, [false, true, true]);
        // The same as without.
        let mut plain = options.clone();
        plain.cache = Default::default();
        let again = layout(&scratch.join(format!("again {what}")));
        become_of(&other, &again, &plain).await;
        let (got, wanted) = (manifest_at(&to).await, manifest_at(&again).await);
        assert_eq!(got.layers, wanted.layers, "{what}");
        assert_unpacks_to(&to, &expected(&other).await, what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_nydus_has_is_refused_for_archives() {
    let scratch = Scratch::new();
    let dir = scratch.dir("source");
    write_layout(&dir, Vec::new()).unwrap();
    let to = layout(&scratch.join("out"));
    let mut merged = gzip();
    merged.publish = draught_packer::Publish::Merged;
    let text = chain(&run_with(&layout(&dir), &to, &merged).await.unwrap_err());
    assert!(text.contains("gzip images serve every client"), "{text}");
    let mut level = zstd();
    level.output = Output::Archives(ArchiveOptions::new(ArchiveFormat::Zstd { level: 99 }));
    let text = chain(&run_with(&layout(&dir), &to, &level).await.unwrap_err());
    assert!(text.contains("99"), "{text}");
    let dictionary = layout(&dir);
    let options = ConvertOptions {
        dictionaries: vec![dictionary],
        output: Output::Nydus(PackOptions::default()),
        ..ConvertOptions::default()
    };
    let text = chain(&run_with(&layout(&dir), &to, &options).await.unwrap_err());
    assert!(text.contains("chunk dictionary"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_estargz_cannot_hold_stays_plain_and_is_told() {
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Told(Mutex<Vec<(usize, String)>>);

    impl draught_packer::Progress for Told {
        fn layer_stays_plain(&self, layer: usize, why: &str) {
            self.0.lock().unwrap().push((layer, why.to_owned()));
        }
    }

    let scratch = Scratch::new();
    let dir = scratch.dir("source");
    let mut writer = draught_tar::Writer::new(Vec::new());
    let entry = draught_tree::Entry {
        path: b"not-\xff-utf8"[..].into(),
        meta: draught_tree::Meta::default(),
        kind: draught_tree::EntryKind::Directory,
    };
    writer.entry(&entry).unwrap();
    let (strange, good) = (writer.finish().unwrap(), archive(&[("a", b"content")]));
    let layers = [&good, &strange].map(|archive| Layer {
        archive: Box::new(&archive[..]),
        packing: Packing::Zstd,
    });
    write_layout(&dir, layers.into()).unwrap();
    let to = layout(&scratch.join("out"));
    let told = Arc::new(Told::default());
    let progress: Arc<dyn draught_packer::Progress> = told.clone();
    let options = estargz(0);
    let (client, from) = (client(), layout(&dir));
    let converted = draught_packer::convert(&client, &from, &to, &options, progress).await;
    converted.unwrap();
    let told = told.0.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, 1);
    assert!(told[0].1.contains("not-"), "{told:?}");
    let toc = "containerd.io/snapshot/stargz/toc.digest";
    let manifest = manifest_at(&to).await;
    let lazy: Vec<bool> = manifest
        .layers
        .iter()
        .map(|it| it.annotation(toc).is_some())
        .collect();
    assert_eq!(lazy, [true, false]);
    assert_unpacks_to(&to, &expected(&layout(&dir)).await, "mixed").await;
}
