//! Manifests and configurations of converted images.
//!
//! Origin: `containerd/nydus-snapshotter: pkg/converter/constant.go, convert_unix.go`.

use draught_digest::Digest;
use draught_importer::NYDUS_BOOTSTRAP;
use draught_oci::{Descriptor, Document, History, ImageConfig, Limits, Manifest, ParseError};

use super::marks;
use crate::cache;

/// What deployed tools call the step that makes the bootstrap.
const BOOTSTRAP_COMMENT: &str = "Nydus Bootstrap Layer";
const CREATED_BY: &str = "draught convert";

/// What the history of an image has to say.
#[derive(Debug)]
pub(super) struct Steps {
    /// For each layer of the source, whether it became one.
    pub(super) became: Vec<bool>,
    /// Layers that belong to none of them; the bootstrap, if there is one, is the last of these.
    pub(super) others: usize,
    pub(super) has_bootstrap: bool,
}

/// Whether a layer is a bootstrap.
pub(super) fn is_bootstrap(layer: &Descriptor) -> bool {
    layer.annotation(NYDUS_BOOTSTRAP).is_some()
}

/// The history of the converted image: as many steps with a layer as there are layers.
fn history(source: &[History], new: &Steps) -> Vec<History> {
    let mut steps = source.to_vec();
    let with_layer = steps.iter().filter(|step| !step.empty_layer).count();
    if with_layer == new.became.len() {
        let mut became = new.became.iter();
        for step in steps.iter_mut().filter(|step| !step.empty_layer) {
            step.empty_layer = !became.next().copied().unwrap_or_default();
        }
    } else {
        // It says nothing of these layers, or lies: it is kept as a text, and the new ones get steps.
        for step in &mut steps {
            step.empty_layer = true;
        }
        for _ in new.became.iter().filter(|became| **became) {
            steps.push(step(None));
        }
    }
    let bootstraps = usize::from(new.has_bootstrap);
    for _ in 0..new.others.saturating_sub(bootstraps) {
        steps.push(step(None));
    }
    if new.has_bootstrap {
        steps.push(step(Some(BOOTSTRAP_COMMENT)));
    }
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
    steps: &Steps,
) -> Result<Document<ImageConfig>, ParseError> {
    let history = history(&source.history, steps);
    source.with_layers(diff_ids, &history, &Limits::default())
}

/// Annotations of the source stay, but for those that are about its own layers.
pub(super) fn inherit(manifest: &mut Manifest, source: &Manifest) {
    manifest.annotations.clone_from(&source.annotations);
    cache::forget(manifest);
    marks::forget(&mut manifest.annotations);
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
        let steps = Steps {
            became: blob_of.to_vec(),
            others: 1,
            has_bootstrap: true,
        };
        let got = history(source, &steps);
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
        let steps = Steps {
            became: vec![true],
            others: 1,
            has_bootstrap: true,
        };
        let config = config(&source, &ids, &steps).unwrap();
        assert_eq!(config.diff_ids, ids);
        let text = String::from_utf8(config.bytes().to_vec()).unwrap();
        assert!(
            text.contains("Healthcheck") && text.contains("unheard.of"),
            "{text}"
        );
        assert!(!text.contains("e3b0c442"), "{text}");
    }
}
