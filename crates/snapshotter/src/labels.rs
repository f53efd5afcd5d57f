//! What clients say of a layer that they are about to pull: labels of three families.
//!
//! Origin: `containerd/containerd: pkg/snapshotters/annotations.go` (CRI's, and since 2.1 the transfer service's),
//! `containerd/stargz-snapshotter: fs/source` (ctr-remote's, nerdctl's), `moby/buildkit: cache/remote.go` (the same with
//! the session's name behind it).

use draught_digest::Digest;
use draught_oci::Reference;

use crate::record::Labels;
use crate::records::REF_LABEL;

/// A committed snapshot that is served lazily says so with this.
pub(crate) const REMOTE_LABEL: &str = "containerd.io/snapshot/remote";
/// What it says; whoever looks for it asks whether it is there.
pub(crate) const REMOTE_VALUE: &str = "remote snapshot";
/// The chain that a layer belongs on, where the client unpacks all at once and says the parent last.
const PARENT_CHAIN: &str = "containerd.io/snapshot/parent-chain-id";
/// The manifest's digest.
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";

/// A family: the label with the image's reference, and the one with the layer's digest.
const FAMILIES: [(&str, &str); 2] = [
    (
        "containerd.io/snapshot/cri.image-ref",
        "containerd.io/snapshot/cri.layer-digest",
    ),
    (
        "containerd.io/snapshot/remote/stargz.reference",
        "containerd.io/snapshot/remote/stargz.digest",
    ),
];

/// A layer that a client would let us serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The name that its snapshot is to be found by.
    pub(crate) target: String,
    /// The image.
    pub(crate) reference: String,
    /// The layer's blob.
    pub(crate) layer: Digest,
    /// The image's manifest, if the client said.
    pub(crate) manifest: Option<Digest>,
}

impl Wanted {
    /// Labels that say this.
    pub(crate) fn labels(&self) -> Labels {
        let [(reference, layer), _] = FAMILIES;
        let mut labels = Labels::from([
            (REF_LABEL.to_owned(), self.target.clone()),
            (reference.to_owned(), self.reference.clone()),
            (layer.to_owned(), self.layer.to_string()),
        ]);
        let manifest = self.manifest.map(|digest| digest.to_string());
        labels.extend(manifest.map(|digest| (MANIFEST.to_owned(), digest)));
        labels
    }
}

/// What labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Nothing: the client would not understand if we served it.
    Nothing,
    /// A layer to serve.
    Layer(Wanted),
    /// The client would understand, and did not say enough.
    Vague {
        /// The image, if it said.
        reference: String,
        /// The layer, if it said.
        layer: Option<String>,
        /// What is missing.
        why: String,
    },
}

/// Reads labels of a snapshot that is to be prepared on `parent`.
pub(crate) fn read(labels: &Labels, parent: &str) -> Ask {
    let Some(target) = labels.get(REF_LABEL).filter(|target| !target.is_empty()) else {
        return Ask::Nothing;
    };
    let of = |name: &str| value(labels, name);
    let reference = FAMILIES.iter().find_map(|(name, _)| of(name));
    let layer = FAMILIES.iter().find_map(|(_, name)| of(name));
    let vague = |why: &str| Ask::Vague {
        reference: reference.unwrap_or_default().to_owned(),
        layer: layer.map(str::to_owned),
        why: why.to_owned(),
    };
    let Some(reference) = reference else {
        return vague("the client did not say which image it belongs to");
    };
    let Some(layer) = layer else {
        return vague("the client did not say which layer it is");
    };
    if parent.is_empty() && of(PARENT_CHAIN).is_some() {
        return vague(
            "the client unpacks all layers at once and says only afterwards what lies below (capability \"rebase\")",
        );
    }
    let Ok(digest) = layer.parse::<Digest>() else {
        return vague("the client gave a layer's digest that is none");
    };
    // A registry's name and nothing else: a label may not make us read files of this machine.
    if reference.parse::<Reference>().is_err() {
        return vague("the client gave an image's name that is no reference to a registry");
    }
    Ask::Layer(Wanted {
        target: target.clone(),
        reference: reference.to_owned(),
        layer: digest,
        manifest: of(MANIFEST).and_then(|digest| digest.parse().ok()),
    })
}

/// A label's value, or that of the same label with the name of a BuildKit session behind it.
fn value<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    let own = labels.get(name).filter(|value| !value.is_empty());
    if let Some(value) = own {
        return Some(value);
    }
    let with_dot = format!("{name}.");
    let range = labels.range(with_dot.clone()..);
    let mut named = range.take_while(|(key, _)| key.starts_with(&with_dot));
    let found = named.find(|(key, value)| {
        let suffix = key.get(with_dot.len()..).unwrap_or_default();
        is_session(suffix) && !value.is_empty()
    });
    found.map(|(_, value)| value.as_str())
}

/// Characters of the name of a BuildKit session, or of anything else of its making.
const SESSION_CHARS: usize = 25;

fn is_session(suffix: &str) -> bool {
    suffix.len() == SESSION_CHARS && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    const LAYER: &str = "sha256:ab915de96c4ced778b73bb06d2cdf4557d41735835e30ce64b4e38806857eb3a";
    const SESSION: &str = "kmj4a1xarh8gsbpj1ync4h924";

    fn wanted(reference: &str) -> Ask {
        Ask::Layer(Wanted {
            target: "sha256:chain".to_owned(),
            reference: reference.to_owned(),
            layer: LAYER.parse().unwrap(),
            manifest: None,
        })
    }

    #[test]
    fn every_family_is_understood() {
        let target = (REF_LABEL, "sha256:chain");
        for (reference, layer) in FAMILIES {
            let plain = labels(&[target, (reference, "r.lan/a:b"), (layer, LAYER)]);
            assert_eq!(read(&plain, ""), wanted("r.lan/a:b"));
            let (long_reference, long_layer) = (
                format!("{reference}.{SESSION}"),
                format!("{layer}.{SESSION}"),
            );
            let suffixed = labels(&[
                target,
                (&long_reference, "r.lan/a:b"),
                (reference, ""),
                (&long_layer, LAYER),
            ]);
            assert_eq!(read(&suffixed, ""), wanted("r.lan/a:b"));
        }
        // BuildKit says the image as CRI does, and the layer as stargz does.
        let mixed = labels(&[target, (FAMILIES[0].0, "r.lan/a:b"), (FAMILIES[1].1, LAYER)]);
        assert_eq!(read(&mixed, "below"), wanted("r.lan/a:b"));
    }

    #[test]
    fn what_is_missing_is_said() {
        let (reference, layer) = FAMILIES[0];
        let target = (REF_LABEL, "sha256:chain");
        assert_eq!(
            read(&labels(&[(reference, "r.lan/a"), (layer, LAYER)]), ""),
            Ask::Nothing
        );
        for (pairs, parent, expect) in [
            (vec![target], "", "which image"),
            (vec![target, (reference, "r.lan/a")], "", "which layer"),
            (
                vec![target, (reference, "r.lan/a"), (layer, "sha256:1")],
                "",
                "digest that is none",
            ),
            (
                vec![target, (reference, "oci:/etc"), (layer, LAYER)],
                "",
                "no reference",
            ),
            (
                vec![
                    target,
                    (reference, "r.lan/a"),
                    (layer, LAYER),
                    (PARENT_CHAIN, "sha256:x"),
                ],
                "",
                "rebase",
            ),
        ] {
            match read(&labels(&pairs), parent) {
                Ask::Vague { why, .. } => assert!(why.contains(expect), "{why}"),
                other => panic!("{pairs:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn another_labels_longer_name_is_no_session() {
        let (reference, layer) = FAMILIES[0];
        let longer = format!("{reference}.something-else-entirely");
        let found = read(
            &labels(&[(REF_LABEL, "x"), (&longer, "r.lan/a"), (layer, LAYER)]),
            "",
        );
        assert!(matches!(found, Ask::Vague { .. }));
    }
}
