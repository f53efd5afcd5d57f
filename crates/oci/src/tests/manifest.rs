use draught_digest::Digest;
use serde_json::json;

use crate::{
    Any, Content as _, Descriptor, DescriptorError, Document, History, ImageConfig, Index, Limits,
    Manifest, ParseError, Platform, annotation, media_type,
};

fn blob(media_type: &str, content: &str) -> Descriptor {
    Descriptor::of(media_type, content.as_bytes())
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::new(
        blob(media_type::CONFIG, "config"),
        vec![
            blob(media_type::LAYER_TAR_GZIP, "one").with_annotation("z", "1"),
            blob(media_type::LAYER_TAR_ZSTD, "two"),
        ],
    );
    manifest.annotations.insert("b".to_owned(), "2".to_owned());
    manifest.annotations.insert("a".to_owned(), "1".to_owned());
    manifest
}

fn parse(value: &serde_json::Value, media_type: &str) -> Result<Any, ParseError> {
    let bytes = serde_json::to_vec(value).unwrap();
    Any::parse(bytes, media_type, &Limits::default())
}

fn value() -> serde_json::Value {
    serde_json::from_slice(&manifest().encode()).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let written = Document::write(manifest());
    let read = Document::<Manifest>::parse(written.bytes().to_vec(), &Limits::default()).unwrap();
    assert_eq!(read, written);
    assert!(read.descriptor().verifies(written.bytes()));

    let image = read
        .descriptor()
        .with_platform("linux/arm64".parse().unwrap());
    let index = Document::write(Index::new(vec![image]));
    let read = Document::<Index>::parse(index.bytes().to_vec(), &Limits::default()).unwrap();
    assert_eq!(read, index);
}

#[test]
fn bytes_written_are_these() {
    let text = String::from_utf8(
        Document::write(Manifest::new(blob(media_type::CONFIG, ""), vec![])).into_bytes(),
    )
    .unwrap();
    assert_eq!(
        text,
        "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
         \"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\
         \"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":0},\
         \"layers\":[]}"
    );
}

#[test]
fn fields_that_nobody_knows_survive_an_edit() {
    let mut value = value();
    value["x-future"] = json!({"deep": [1, 2.5, null]});
    value["layers"][0]["x-layer"] = json!("kept");
    let document =
        Document::<Manifest>::parse(serde_json::to_vec(&value).unwrap(), &Limits::default())
            .unwrap();
    let edited = document
        .edit(&Limits::default(), |value| {
            value["annotations"]["new"] = json!("yes");
        })
        .unwrap();
    let after: serde_json::Value = serde_json::from_slice(edited.bytes()).unwrap();
    assert_eq!(after["x-future"], value["x-future"]);
    assert_eq!(after["layers"][0]["x-layer"], json!("kept"));
    assert_eq!(edited.annotations["new"], "yes");
    assert_ne!(edited.digest(), document.digest());
}

#[test]
fn null_is_an_empty_list() {
    let mut value = value();
    value["layers"] = json!(null);
    value["annotations"] = json!(null);
    let Any::Manifest(read) = parse(&value, "").unwrap() else {
        panic!("not a manifest");
    };
    assert!(read.layers.is_empty());
}

#[test]
fn a_document_that_could_be_both_is_refused() {
    let mut value = value();
    value["manifests"] = json!([]);
    for media_type in [media_type::MANIFEST, media_type::INDEX, ""] {
        value["mediaType"] = if media_type.is_empty() {
            json!(media_type::MANIFEST)
        } else {
            json!(media_type)
        };
        let error = parse(&value, media_type).unwrap_err();
        assert!(matches!(error, ParseError::Ambiguous), "{error}");
    }
}

#[test]
fn header_and_document_must_agree() {
    let error = parse(&value(), media_type::DOCKER_MANIFEST).unwrap_err();
    assert!(matches!(error, ParseError::MediaType { .. }), "{error}");
    let error = parse(&value(), media_type::INDEX).unwrap_err();
    assert!(matches!(error, ParseError::MediaType { .. }), "{error}");
    let error = parse(&value(), "text/html").unwrap_err();
    assert!(
        matches!(error, ParseError::UnknownMediaType { .. }),
        "{error}"
    );
    assert!(
        parse(
            &value(),
            &format!("{}; charset=utf-8", media_type::MANIFEST)
        )
        .is_ok()
    );
}

#[test]
fn without_a_media_type_the_fields_decide() {
    let mut manifest = value();
    manifest.as_object_mut().unwrap().remove("mediaType");
    assert!(matches!(parse(&manifest, "").unwrap(), Any::Manifest(_)));
    let index = json!({"schemaVersion": 2, "manifests": []});
    assert!(matches!(parse(&index, "").unwrap(), Any::Index(_)));
}

#[test]
fn schema_1_is_refused_by_name() {
    let schema1 = json!({"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []});
    for media_type in ["", media_type::DOCKER_SCHEMA1_SIGNED, media_type::MANIFEST] {
        let error = parse(&schema1, media_type).unwrap_err();
        assert!(matches!(error, ParseError::Schema1), "{error}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits {
        document_bytes_max: 100,
        ..Limits::default()
    };
    let error = Document::<Manifest>::parse(manifest().encode(), &limits).unwrap_err();
    assert!(
        matches!(
            error,
            ParseError::TooLong {
                limit_bytes: 100,
                ..
            }
        ),
        "{error}"
    );
    let limits = Limits {
        descriptors_max: 1,
        ..Limits::default()
    };
    let error = Document::<Manifest>::parse(manifest().encode(), &limits).unwrap_err();
    assert!(
        matches!(error, ParseError::TooMany { count: 2, limit: 1 }),
        "{error}"
    );
}

#[test]
fn wrong_descriptors_are_refused_by_name() {
    let refused = |field: &str, wrong: serde_json::Value| {
        let mut value = value();
        value["layers"][1][field] = wrong;
        match parse(&value, "").unwrap_err() {
            ParseError::Descriptor { field, source, .. } => {
                assert_eq!(field, "layers[1]");
                source
            }
            error => panic!("{error}"),
        }
    };
    let sha512 = refused("digest", json!(format!("sha512:{}", "0".repeat(128))));
    assert!(
        matches!(sha512, DescriptorError::Algorithm { .. }),
        "{sha512}"
    );
    let blake3 = refused("digest", json!(Digest::blake3(b"").to_string()));
    assert!(
        matches!(blake3, DescriptorError::Algorithm { .. }),
        "{blake3}"
    );
    let malformed = refused("digest", json!("sha256:../../etc/passwd"));
    assert!(
        matches!(malformed, DescriptorError::Digest { .. }),
        "{malformed}"
    );
    let negative = refused("size", json!(-1));
    assert!(
        matches!(negative, DescriptorError::Size { size: -1, .. }),
        "{negative}"
    );
    let other = refused("data", json!("b3RoZXI="));
    assert!(
        matches!(other, DescriptorError::DataMismatch { bytes: 5, .. }),
        "{other}"
    );
    let garbage = refused("data", json!("~"));
    assert!(
        matches!(garbage, DescriptorError::DataEncoding { .. }),
        "{garbage}"
    );
    let untyped = refused("mediaType", json!(""));
    assert!(
        matches!(untyped, DescriptorError::MediaType { .. }),
        "{untyped}"
    );
}

#[test]
fn embedded_data_is_verified_and_given() {
    let mut value = value();
    value["config"]["data"] = json!("Y29uZmln");
    let Any::Manifest(read) = parse(&value, "").unwrap() else {
        panic!("not a manifest");
    };
    assert_eq!(read.config.data.as_deref(), Some(b"config".as_slice()));
}

#[test]
fn hostile_json_ends_in_an_error() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "{\"schemaVersion\":2}",
        "{\"schemaVersion\":2,\"schemaVersion\":2,\"manifests\":[]}",
        "{\"schemaVersion\":2,\"manifests\":[{}]}",
        "{\"schemaVersion\":99999999999,\"manifests\":[]}",
        deep.as_str(),
    ] {
        let parsed = Any::parse(text.as_bytes().to_vec(), "", &Limits::default());
        assert!(parsed.is_err(), "{text:.40} was taken");
    }
}

#[test]
fn the_best_platform_is_selected_and_attestations_never() {
    let image = |content: &str, platform: &str| {
        blob(media_type::MANIFEST, content).with_platform(platform.parse().unwrap())
    };
    let attestation = blob(media_type::MANIFEST, "attestation").with_annotation(
        annotation::DOCKER_REFERENCE_TYPE,
        annotation::DOCKER_ATTESTATION,
    );
    let mut index = Index::new(vec![
        attestation,
        blob("application/other", "other"),
        image("arm v6", "linux/arm/v6"),
        image("arm v7", "linux/arm/v7"),
        image("amd64", "linux/amd64"),
        image("amd64 again", "linux/amd64"),
    ]);
    let select = |index: &Index, platform: &str| {
        index
            .select(&platform.parse().unwrap())
            .map(|found| found.digest)
    };
    let digest = |content: &str| Some(Digest::sha256(content.as_bytes()));
    assert_eq!(select(&index, "linux/amd64"), digest("amd64"));
    assert_eq!(select(&index, "linux/arm/v7"), digest("arm v7"));
    assert_eq!(select(&index, "linux/arm64"), digest("arm v7"));
    assert_eq!(select(&index, "linux/riscv64"), None);
    index.manifests.push(blob(media_type::MANIFEST, "untold"));
    assert_eq!(select(&index, "linux/riscv64"), digest("untold"));
    assert_eq!(select(&index, "linux/amd64"), digest("amd64"));
}

#[test]
fn configuration_over_new_layers_keeps_all_else() {
    let bytes = serde_json::to_vec(&json!({
        "architecture": "arm64", "os": "linux", "variant": "v8", "x-own": 1,
        "config": {"Env": ["A=1"], "Cmd": null, "Entrypoint": ["/bin/sh"], "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(b"old").to_string()]},
        "history": [{"created_by": "RUN x"}, {"created_by": "ENV", "empty_layer": true}],
    }))
    .unwrap();
    let limits = Limits::default();
    let config = Document::<ImageConfig>::parse(bytes, &limits).unwrap();
    assert_eq!(config.platform, Platform::new("linux", "arm64", ""));
    assert_eq!(config.run.entrypoint, ["/bin/sh"]);
    assert!(config.run.cmd.is_empty());
    assert!(config.history[1].empty_layer);

    let step = History {
        created_by: Some("convert".to_owned()),
        ..History::default()
    };
    let new = config
        .with_layers(&[Digest::sha256(b"new")], &[step], &limits)
        .unwrap();
    assert_eq!(new.diff_ids, [Digest::sha256(b"new")]);
    assert_eq!(new.history.len(), 1);
    let value: serde_json::Value = serde_json::from_slice(new.bytes()).unwrap();
    assert_eq!(value["x-own"], 1);
    assert_eq!(value["config"]["ExposedPorts"], json!({"80/tcp": {}}));
}

#[test]
fn configurations_are_written_and_read_back() {
    let mut config = ImageConfig::new("linux/arm/v6".parse().unwrap(), vec![Digest::sha256(b"a")]);
    config.run.env = vec!["PATH=/bin".to_owned()];
    config.history.push(History {
        empty_layer: true,
        ..History::default()
    });
    let written = Document::write(config);
    let read = Document::<ImageConfig>::parse(written.bytes().to_vec(), &Limits::default());
    assert_eq!(read.unwrap(), written);
}

#[test]
fn configurations_with_other_root_file_systems_are_refused() {
    let limits = Limits::default();
    let parse = |text: &str| Document::<ImageConfig>::parse(text.as_bytes().to_vec(), &limits);
    let error = parse("{\"rootfs\":{\"type\":\"squash\",\"diff_ids\":[]}}").unwrap_err();
    assert!(matches!(error, ParseError::Rootfs { .. }), "{error}");
    let error = parse("{}").unwrap_err();
    assert!(matches!(error, ParseError::Rootfs { .. }), "{error}");
    let error =
        parse("{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha512:00\"]}}").unwrap_err();
    assert!(
        matches!(error, ParseError::DiffId { index: 0, .. }),
        "{error}"
    );
}
