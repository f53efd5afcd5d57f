//! The names of one image in the place of another's.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use draught_containerd::snapshots::Info;

use super::image::Image;
use super::trace::{Answer, Call, Line, Trace};
use crate::snapshots::Labels;

const DIGEST: &str = "sha256:";
const HEX: usize = 64;

/// What stands for what: digests and references of the recording machine, and those of an image here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    references: Vec<(String, String)>,
    digests: BTreeMap<String, String>,
}

impl Mapping {
    /// A reference stands for another.
    #[must_use]
    pub fn reference(mut self, from: &str, to: &str) -> Self {
        // A trace without labels knows none.
        if !from.is_empty() {
            self.references.push((from.to_owned(), to.to_owned()));
        }
        self
    }

    /// Digests stand for others, one for one: of layers, tables of contents, manifests, diff ids, chains.
    ///
    /// # Panics
    ///
    /// If there are not as many of both.
    #[must_use]
    pub fn digests<F: AsRef<str>, T: AsRef<str>>(mut self, from: &[F], to: &[T]) -> Self {
        assert_eq!(from.len(), to.len(), "the lists are not equally long");
        for (from, to) in from.iter().zip(to) {
            let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
            self.digests.insert(from, to);
        }
        self
    }

    /// Everything that is said of one image, said of another.
    ///
    /// # Errors
    ///
    /// If they have not as many layers, or a table of contents is missing.
    pub fn between(from: &Image, to: &Image) -> Result<Self> {
        ensure!(
            from.layers.len() == to.layers.len(),
            "the image of the trace has {} layers and this one {}",
            from.layers.len(),
            to.layers.len()
        );
        let mut mapping = Self::default()
            .reference(&from.reference, &to.reference)
            .digests(&[&from.manifest], &[&to.manifest]);
        for (from, to) in from.layers.iter().zip(&to.layers) {
            // Chains last: one stands for what the trace does not tell.
            mapping = mapping.digests(
                &[&from.digest, &from.diff_id, &from.chain_id],
                &[&to.digest, &to.diff_id, &to.chain_id],
            );
            if let Some(from) = &from.toc {
                // A layer that has none is not lazy: what stands for its table is never looked up.
                let to = to.toc.as_ref().unwrap_or(&to.digest);
                mapping = mapping.digests(&[from], &[to]);
            }
        }
        Ok(mapping)
    }

    /// A text with everything replaced that has another name here.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        'text: while let Some(first) = rest.chars().next() {
            for (from, to) in &self.references {
                // The digest after it, if there is one, is replaced by itself.
                if let Some(after) = rest.strip_prefix(from.as_str()) {
                    out.push_str(to);
                    rest = after;
                    continue 'text;
                }
            }
            if let Some(digest) = digest_at(rest) {
                let to = self.digests.get(digest).map_or(digest, String::as_str);
                out.push_str(to);
                rest = rest.get(digest.len()..).unwrap_or_default();
                continue;
            }
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
        out
    }

    /// Labels with their values replaced.
    #[must_use]
    pub fn labels(&self, labels: &Labels) -> Labels {
        let all = labels.iter();
        all.map(|(key, value)| (key.clone(), self.apply(value)))
            .collect()
    }

    /// A trace of the other image. Names that snapshotters make up stay as they were.
    #[must_use]
    pub fn trace(&self, trace: &Trace) -> Trace {
        Trace {
            name: trace.name.clone(),
            lines: trace.lines.iter().map(|line| self.line(line)).collect(),
        }
    }

    fn line(&self, line: &Line) -> Line {
        let text = |text: &String| self.apply(text);
        let texts = |all: &[String]| all.iter().map(text).collect();
        let labels = |labels: &Labels| self.labels(labels);
        let call = match &line.call {
            Call::Prepare {
                key,
                parent,
                labels: of,
            } => Call::Prepare {
                key: text(key),
                parent: text(parent),
                labels: labels(of),
            },
            Call::View {
                key,
                parent,
                labels: of,
            } => Call::View {
                key: text(key),
                parent: text(parent),
                labels: labels(of),
            },
            Call::Mounts { key } => Call::Mounts { key: text(key) },
            Call::Commit {
                key,
                name,
                parent,
                labels: of,
            } => Call::Commit {
                key: text(key),
                name: text(name),
                parent: text(parent),
                labels: labels(of),
            },
            Call::Remove { key } => Call::Remove { key: text(key) },
            Call::Stat { key } => Call::Stat { key: text(key) },
            Call::Update {
                name,
                labels: of,
                mask,
            } => Call::Update {
                name: text(name),
                labels: labels(of),
                mask: mask.clone(),
            },
            Call::List { filters } => Call::List {
                filters: texts(filters),
            },
            Call::Usage { key } => Call::Usage { key: text(key) },
            Call::Cleanup => Call::Cleanup,
        };
        let answer = match &line.answer {
            Answer::Info(info) => Answer::Info(Box::new(Info {
                name: text(&info.name),
                parent: text(&info.parent),
                labels: labels(&info.labels.clone().into_iter().collect())
                    .into_iter()
                    .collect(),
                ..Info::clone(info)
            })),
            other => other.clone(),
        };
        Line {
            call,
            answer,
            ..line.clone()
        }
    }

    /// Digests of a trace that nothing stands for.
    #[must_use]
    pub fn unknown_in(&self, trace: &Trace) -> Vec<String> {
        let text = format!("{:?}", trace.lines);
        let mut unknown: Vec<String> = text
            .match_indices(DIGEST)
            .filter_map(|(at, _)| digest_at(text.get(at..)?))
            .filter(|digest| !self.digests.contains_key(*digest))
            .map(str::to_owned)
            .collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }
}

/// The digest that a text begins with.
fn digest_at(text: &str) -> Option<&str> {
    let hex = text.strip_prefix(DIGEST)?.get(..HEX)?;
    let is_digest = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| text.get(..DIGEST.len() + HEX)).flatten()
}

/// The image that a trace speaks of: what of it the trace tells.
pub(super) mod recorded {
    use super::{Call, Image, Trace};
    use crate::snapshots::replay::image::ImageLayer;

    const LABEL: &str = "containerd.io/snapshot";

    /// Reads the image out of the labels and names of a trace. Where no label tells a digest of a layer,
    /// its chain stands for it: nobody speaks of the digest then.
    pub(in super::super) fn image(trace: &Trace) -> Image {
        let mut image = Image {
            reference: String::new(),
            manifest: String::new(),
            layers: Vec::new(),
        };
        for line in &trace.lines {
            let Call::Prepare { key, labels, .. } = &line.call else {
                continue;
            };
            let Some(chain_id) = super::digests_in(key).pop() else {
                continue;
            };
            let label = |names: &[&str]| {
                let mut names = names.iter();
                names.find_map(|name| labels.get(&format!("{LABEL}{name}")).cloned())
            };
            let at = image.layers.iter().position(|it| it.chain_id == chain_id);
            let at = at.unwrap_or_else(|| {
                image.layers.push(ImageLayer {
                    digest: chain_id.clone(),
                    diff_id: chain_id.clone(),
                    chain_id,
                    toc: None,
                    blob: None,
                });
                image.layers.len() - 1
            });
            let layer = &mut image.layers[at];
            if let Some(digest) = label(&["/remote/stargz.digest", "/cri.layer-digest"]) {
                layer.digest = digest;
            }
            if let Some(diff_id) = label(&["/diff-id"]) {
                layer.diff_id = diff_id;
            }
            let toc = label(&["/stargz/toc.digest"]).filter(|toc| !toc.is_empty());
            layer.toc = toc.or(layer.toc.take());
            if let Some(reference) = label(&["/remote/stargz.reference", "/cri.image-ref"]) {
                let (name, digest) = reference.split_once('@').unwrap_or((&reference, ""));
                name.clone_into(&mut image.reference);
                if !digest.is_empty() {
                    digest.clone_into(&mut image.manifest);
                }
            }
            if let Some(manifest) = label(&["/cri.manifest-digest"]) {
                image.manifest = manifest;
            }
        }
        fill(&mut image, trace);
        image
    }

    /// Layers that only lists of layers name: BuildKit asks for the first layer alone, and names them all.
    fn fill(image: &mut Image, trace: &Trace) {
        let lists = trace.lines.iter().filter_map(|line| {
            let Call::Prepare { labels, .. } = &line.call else {
                return None;
            };
            let names = ["/remote/stargz.layers", "/cri.image-layers"];
            let mut names = names.iter();
            names.find_map(|name| labels.get(&format!("{LABEL}{name}")))
        });
        let longest = lists.max_by_key(|list| list.len());
        let digests = longest.map(|list| super::digests_in(list));
        for (layer, digest) in image.layers.iter_mut().zip(digests.into_iter().flatten()) {
            layer.digest = digest;
        }
    }
}

/// All digests in a text.
fn digests_in(text: &str) -> Vec<String> {
    let found = text.match_indices(DIGEST);
    found
        .filter_map(|(at, _)| digest_at(text.get(at..)?))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::trace::NAMES;
    use super::*;

    #[test]
    fn texts_are_replaced_whole_and_once() {
        let (a, b) = (
            format!("sha256:{}", "a".repeat(64)),
            format!("sha256:{}", "b".repeat(64)),
        );
        // Each is the other's: replacing one after the other would lose both.
        let mapping = Mapping::default()
            .reference("127.0.0.1:1/x:y", "127.0.0.1:22/z:y")
            .digests(&[&a, &b], &[&b, &a]);
        assert_eq!(
            mapping.apply(&format!("127.0.0.1:1/x:y@{a},{b} sha256:short ü")),
            format!("127.0.0.1:22/z:y@{b},{a} sha256:short ü")
        );
    }

    #[test]
    fn a_trace_tells_all_that_there_is_to_replace() {
        for name in NAMES {
            let trace = Trace::named(name);
            let image = recorded::image(&trace);
            assert_eq!(image.layers.len(), 4, "{name}");
            let mut other = image.clone();
            "127.0.0.1:1/a:b".clone_into(&mut other.reference);
            let mapping = Mapping::between(&image, &other).unwrap();
            assert_eq!(mapping.unknown_in(&trace), [""; 0], "{name}");
            let replaced = format!("{:?}", mapping.trace(&trace));
            assert!(!replaced.contains("127.0.0.1:15990"), "{name}");
        }
    }

    #[test]
    fn an_image_of_other_layers_can_not_stand_for_it() {
        let image = recorded::image(&Trace::named(NAMES[0]));
        let mut other = image.clone();
        other.layers.pop();
        assert!(Mapping::between(&image, &other).is_err());
    }
}
