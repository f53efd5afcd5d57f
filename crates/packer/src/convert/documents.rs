//! Manifests and configurations of converted images.
//!
//! Origin: `containerd/nydus-snapshotter: pkg/converter/constant.go, convert_unix.go`.

use draught_digest::Digest;
use draught_importer::{NYDUS_BLOB, NYDUS_BLOB_MEDIA_TYPE, NYDUS_BOOTSTRAP, NYDUS_FS_VERSION};
use draught_oci::{
    Descriptor, Document, History, ImageConfig, Limits, Manifest, ParseError, media_type,
};

use crate::cache;

/// The manifest that an image was made from.
const SOURCE_DIGEST: &str = "containerd.io/snapshot/nydus-source-digest";
/// The version of RAFS that we write.
const FS_VERSION: &str = "6";
/// What deployed tools call the step that makes the bootstrap.
const BOOTSTRAP_COMMENT: &str = "Nydus Bootstrap Layer";
const CREATED_BY: &str = "draught convert";

/// A data blob as a layer.
pub(crate) fn blob_descriptor(digest: Digest, bytes: u64) -> Descriptor {
    Descriptor::new(NYDUS_BLOB_MEDIA_TYPE, digest, bytes).with_annotation(NYDUS_BLOB, "true")
}

/// The layer with the bootstrap.
pub(super) fn bootstrap_descriptor(digest: Digest, bytes: u64) -> Descriptor {
    Descriptor::new(media_type::LAYER_TAR_GZIP, digest, bytes)
        .with_annotation(NYDUS_BOOTSTRAP, "true")
        .with_annotation(NYDUS_FS_VERSION, FS_VERSION)
}

/// The history of the converted image: as many steps with a layer as there are layers. `blob_of` says
/// for each layer of the source whether it became a blob.
pub(super) fn history(source: &[History], blob_of: &[bool]) -> Vec<History> {
    let mut steps = source.to_vec();
    let with_layer = steps.iter().filter(|step| !step.empty_layer).count();
    if with_layer == blob_of.len() {
        let mut became_blob = blob_of.iter();
        for step in steps.iter_mut().filter(|step| !step.empty_layer) {
            step.empty_layer = !became_blob.next().copied().unwrap_or_default();
        }
    } else {
        // It says nothing of these layers, or lies: it is kept as a text, and the blobs get steps.
        for step in &mut steps {
            step.empty_layer = true;
        }
        for _ in blob_of.iter().filter(|became_blob| **became_blob) {
            steps.push(step(None));
        }
    }
    steps.push(step(Some(BOOTSTRAP_COMMENT)));
    steps
}

fn step(comment: Option<&str>) -> History {
    History {
        created_by: Some(CREATED_BY.to_owned()),
        comment: comment.map(str::to_owned),
        ..History::default()
    }
}

/// The configuration of the converted image: all that runs it stays.
pub(super) fn config(
    source: &Document<ImageConfig>,
    diff_ids: &[Digest],
    blob_of: &[bool],
) -> Result<Document<ImageConfig>, ParseError> {
    let history = history(&source.history, blob_of);
    source.with_layers(diff_ids, &history, &Limits::default())
}

/// The manifest of the converted image. Annotations of the source stay, and its digest is noted.
pub(super) fn manifest(
    source: Option<(&Manifest, Digest)>,
    config: &Document<ImageConfig>,
    layers: Vec<Descriptor>,
) -> Manifest {
    let mut manifest = Manifest::new(config.descriptor(), layers);
    if let Some((source, digest)) = source {
        manifest.annotations.clone_from(&source.annotations);
        cache::forget(&mut manifest);
        manifest
            .annotations
            .insert(SOURCE_DIGEST.to_owned(), digest.to_string());
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, empty_layer: bool) -> History {
        History {
            created_by: Some(name.to_owned()),
            empty_layer,
            ..History::default()
        }
    }

    fn check(source: &[History], blob_of: &[bool], expect: &[(&str, bool)]) {
        let got = history(source, blob_of);
        let got: Vec<_> = got
            .iter()
            .map(|step| {
                (
                    step.created_by.as_deref().unwrap_or_default(),
                    step.empty_layer,
                )
            })
            .collect();
        assert_eq!(got, expect);
        let layers = blob_of.iter().filter(|became_blob| **became_blob).count() + 1;
        assert_eq!(got.iter().filter(|(_, empty)| !empty).count(), layers);
    }

    #[test]
    fn history_has_a_step_for_every_layer_and_no_more() {
        check(
            &[named("a", false), named("env", true), named("b", false)],
            &[true, false],
            &[
                ("a", false),
                ("env", true),
                ("b", true),
                (CREATED_BY, false),
            ],
        );
        check(&[], &[true], &[(CREATED_BY, false), (CREATED_BY, false)]);
        check(&[], &[], &[(CREATED_BY, false)]);
        check(
            &[named("one of two", false)],
            &[true, true],
            &[
                ("one of two", true),
                (CREATED_BY, false),
                (CREATED_BY, false),
                (CREATED_BY, false),
            ],
        );
    }

    #[test]
    fn configurations_keep_what_we_do_not_know() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Healthcheck":{"Test":["CMD"]}},
            "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
            "unheard.of":{"x":1}}"#;
        let source = Document::<ImageConfig>::parse(text.into(), &Limits::default()).unwrap();
        let ids = [Digest::sha256(b"blob"), Digest::sha256(b"bootstrap")];
        let config = config(&source, &ids, &[true]).unwrap();
        assert_eq!(config.diff_ids, ids);
        let text = String::from_utf8(config.bytes().to_vec()).unwrap();
        assert!(
            text.contains("Healthcheck") && text.contains("unheard.of"),
            "{text}"
        );
        assert!(!text.contains("e3b0c442"), "{text}");
    }

    #[test]
    fn layers_are_marked_as_deployed_snapshotters_expect() {
        let digest = Digest::sha256(b"");
        let blob = blob_descriptor(digest, 1);
        assert_eq!(
            blob.media_type,
            "application/vnd.oci.image.layer.nydus.blob.v1"
        );
        assert_eq!(
            blob.annotation("containerd.io/snapshot/nydus-blob"),
            Some("true")
        );
        let bootstrap = bootstrap_descriptor(digest, 1);
        assert_eq!(
            bootstrap.media_type,
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert_eq!(
            bootstrap.annotation("containerd.io/snapshot/nydus-bootstrap"),
            Some("true")
        );
        assert_eq!(
            bootstrap.annotation("containerd.io/snapshot/nydus-fs-version"),
            Some("6")
        );
    }
}
