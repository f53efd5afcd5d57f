//! Manifests of every kind, and layers that hold metadata or something else.

use draught_digest::Digest;
use draught_oci::{Descriptor, Manifest, media_type};
use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Meta};
use proptest::prelude::*;

use super::*;

fn layer(kind: &str, annotations: &[(&str, &str)]) -> Descriptor {
    let digest = Digest::sha256(format!("{kind}{annotations:?}").as_bytes());
    let mut descriptor = Descriptor::new(kind, digest, 100);
    for (name, value) in annotations {
        descriptor
            .annotations
            .insert((*name).to_owned(), (*value).to_owned());
    }
    descriptor
}

fn manifest(layers: Vec<Descriptor>) -> Manifest {
    Manifest::new(layer(media_type::CONFIG, &[]), layers)
}

fn nydus_blob() -> Descriptor {
    layer(NYDUS_BLOB_MEDIA_TYPE, &[(NYDUS_BLOB, "true")])
}

fn bootstrap(more: &[(&str, &str)]) -> Descriptor {
    let annotations = [&[(NYDUS_BOOTSTRAP, "true")], more].concat();
    layer(media_type::LAYER_TAR_GZIP, &annotations)
}

#[test]
fn formats_are_told_from_the_manifest() {
    let plain = || layer(media_type::LAYER_TAR_GZIP, &[]);
    let estargz = || {
        layer(
            media_type::LAYER_TAR_GZIP,
            &[(
                "containerd.io/snapshot/stargz/toc.digest",
                &*Digest::sha256(b"").to_string(),
            )],
        )
    };
    let chunked = || {
        layer(
            media_type::LAYER_TAR_ZSTD,
            &[("io.github.containers.zstd-chunked.manifest-checksum", "x")],
        )
    };
    for (layers, expect) in [
        (vec![], "unsupported"),
        (
            vec![plain(), layer(media_type::DOCKER_LAYER_TAR_GZIP, &[])],
            "plain layers",
        ),
        (vec![estargz(), estargz()], "eStargz"),
        (vec![estargz(), plain()], "plain layers"),
        (vec![chunked()], "zstd:chunked"),
        (
            vec![nydus_blob(), bootstrap(&[(NYDUS_FS_VERSION, "6")])],
            "nydus",
        ),
        (vec![nydus_blob(), bootstrap(&[])], "nydus"),
        (vec![bootstrap(&[])], "nydus"),
        (
            vec![nydus_blob(), bootstrap(&[(NYDUS_FS_VERSION, "5")])],
            "unsupported",
        ),
        (vec![nydus_blob()], "unsupported"),
        (
            vec![nydus_blob(), bootstrap(&[]), bootstrap(&[])],
            "unsupported",
        ),
        (vec![plain(), bootstrap(&[])], "unsupported"),
        (
            vec![layer("application/vnd.in-toto+json", &[])],
            "unsupported",
        ),
    ] {
        let format = detect(&manifest(layers.clone()));
        assert_eq!(format.name(), expect, "{layers:?}");
    }
}

#[test]
fn what_is_not_lazy_says_why() {
    let plain = layer(media_type::LAYER_TAR_GZIP, &[]);
    for (layers, expect) in [
        (
            vec![layer(media_type::LAYER_TAR, &[])],
            "its layers are tar archives; convert it first",
        ),
        (
            vec![nydus_blob(), bootstrap(&[(NYDUS_FS_VERSION, "5")])],
            "RAFS version 5",
        ),
        (
            vec![
                nydus_blob(),
                bootstrap(&[("containerd.io/snapshot/nydus-ref", "sha256:0")]),
            ],
            "zran",
        ),
        (
            vec![
                layer(
                    media_type::LAYER_TAR_GZIP,
                    &[(
                        "containerd.io/snapshot/stargz/toc.digest",
                        &*Digest::sha256(b"").to_string(),
                    )],
                ),
                plain.clone(),
            ],
            &*plain.digest.to_string(),
        ),
    ] {
        let error = Import::new(&manifest(layers), &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    }
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        let kind = EntryKind::File {
            bytes: content.len() as u64,
            chunks: Box::default(),
        };
        let path = path.as_bytes().into();
        let meta = Meta::default();
        writer.entry(&Entry { path, meta, kind }).unwrap();
        writer.data(content).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn the_bootstrap_is_found_under_any_spelling_and_bounded() {
    for name in ["image/image.boot", "./image/image.boot"] {
        let layer = archive(&[("image/other", b"no"), (name, b"boot"), ("later", b"no")]);
        assert_eq!(metadata_from_layer(&layer, 10_000).unwrap(), b"boot");
        assert!(matches!(
            metadata_from_layer(&layer, 3),
            Err(MetadataLayerError::TooLarge { bytes: 4, limit: 3 }
                | MetadataLayerError::Layer(_)
                | MetadataLayerError::Tar(_))
        ));
    }
    let none = archive(&[("image/other", b"no")]);
    assert!(matches!(
        metadata_from_layer(&none, 10_000),
        Err(MetadataLayerError::NotFound)
    ));
    assert!(metadata_from_layer(b"no archive at all", 10_000).is_err());
}

#[test]
fn bytes_of_another_blob_are_not_taken() {
    let bytes = archive(&[("image/image.boot", b"boot")]);
    let mut descriptor = bootstrap(&[]);
    descriptor.digest = Digest::sha256(&bytes);
    descriptor.size = bytes.len() as u64;
    let mut import = Import::new(&manifest(vec![descriptor]), &Limits::default()).unwrap();
    let Step::Read(reads) = import.step().unwrap() else {
        panic!("the metadata is not there yet");
    };
    assert!(reads[0].whole);
    let mut wrong = bytes.clone();
    wrong[0] ^= 1;
    assert!(matches!(
        import.give(&reads[0], wrong),
        Err(ImportError::Corrupt { .. })
    ));
    assert!(matches!(
        import.give(&reads[0], b"short".to_vec()),
        Err(ImportError::Length { .. })
    ));
    // The right bytes are still welcome, and are no bootstrap.
    import.give(&reads[0], bytes).unwrap();
    assert!(matches!(import.step(), Err(ImportError::Bootstrap(_))));
}

#[test]
fn layers_with_their_own_metadata_are_asked_for_at_once_and_each_once() {
    let sized = |size: u64| {
        let toc = Digest::sha256(b"").to_string();
        let annotations = [("containerd.io/snapshot/stargz/toc.digest", &*toc)];
        let mut layer = layer(media_type::LAYER_TAR_GZIP, &annotations);
        layer.digest = Digest::sha256(&size.to_le_bytes());
        layer.size = size;
        layer
    };
    let image = manifest(vec![sized(100), sized(1 << 30), sized(100)]);
    let mut import = Import::new(&image, &Limits::default()).unwrap();
    let Step::Read(reads) = import.step().unwrap() else {
        panic!("nothing is there yet");
    };
    let ranges: Vec<_> = reads.iter().map(|read| read.range.clone()).collect();
    assert_eq!(ranges, [0..100, (1 << 30) - (128 << 10)..1 << 30]);
    let error = import.give(&reads[0], vec![0; 100]).unwrap_err();
    assert!(
        matches!(error, ImportError::Layer { layer, .. } if layer == reads[0].blob),
        "{error}"
    );
    let limits = Limits {
        layer_bytes_max: 100_000,
        ..Limits::default()
    };
    let mut import = Import::new(&image, &limits).unwrap();
    assert!(matches!(import.step(), Err(ImportError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn changed_layers_give_metadata_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut layer = archive(&[("image/other", b"no"), ("image/image.boot", &[7; 5000])]);
        for (at, value) in changes {
            let at = at.index(layer.len());
            layer[at] = value;
        }
        if let Ok(bytes) = metadata_from_layer(&layer, 10_000) {
            prop_assert!(bytes.len() <= 10_000);
        }
    }
}
