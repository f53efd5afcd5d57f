//! Images that clients are pulling: which of their layers are lazy, decided once for all layers of an image.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_digest::Digest;
use draught_importer::{Format, Part, detect, estargz_toc};
use draught_node::{Content, Fetched, Node, Origin};
use draught_oci::Reference;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::labels::Wanted;
use crate::record::Role;
use crate::records::Change;
use crate::stack::Layers;
use crate::state::State;

/// How long what was decided of an image counts: a pull asks for one layer after the other, and a plain one in
/// between may take minutes. Afterwards the registry is asked again.
const FRESH: Duration = Duration::from_secs(600);
/// How long an image that could not be had is not asked for again: its other layers are wanted at once, and would each
/// wait for a registry that does not answer.
const FAILED: Duration = Duration::from_secs(10);
/// Images of which that is kept.
const IMAGES_MAX: usize = 256;

/// What becomes of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is served.
    Lazy(Role),
    /// The client is to pull it, because of this.
    Eager(String),
    /// It can't be had in any way, because of this: no client can unpack it.
    Never(String),
}

/// An image that is being pulled.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) fetched: Fetched,
    /// The reference with the manifest's digest: what it stays, whatever becomes of the tag.
    pub(crate) reference: String,
    /// In the order of the manifest.
    pub(crate) layers: Vec<(Digest, Verdict)>,
}

impl Image {
    /// Whether these parts are the lazy ones among the image's lowest layers, however many: then they were kept with
    /// the others above.
    pub(crate) fn was_judged_with(&self, parts: &[Part]) -> bool {
        let mut layers = Layers::default();
        self.layers.iter().any(|layer| {
            add(&mut layers, layer);
            layers.parts == parts
        })
    }
}

/// Says why with all reasons, for a log and a person.
type Reason = String;

/// Why nothing can be said of an image now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) why: Reason,
    /// Whether no client could unpack it either.
    pub(crate) is_never_plain: bool,
}

fn failed(why: Reason) -> Failed {
    let is_never_plain = false;
    Failed {
        why,
        is_never_plain,
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Images {
    node: Node,
    state: State,
    known: Mutex<HashMap<Key, Entry>>,
    /// When what was kept last, by the digest under which it is.
    young: Mutex<HashMap<Digest, Instant>>,
}

type Key = (String, Option<Digest>);

#[derive(Debug)]
struct Entry {
    since: Instant,
    image: Arc<OnceCell<Arc<Image>>>,
    /// When and why it could not be had last.
    failed: Arc<Mutex<Option<(Instant, Failed)>>>,
}

impl Images {
    pub(crate) fn new(node: Node, state: State) -> Self {
        Self {
            node,
            state,
            known: Mutex::default(),
            young: Mutex::default(),
        }
    }

    /// The image that a layer is wanted with. Whoever asks for the same one meanwhile waits for the same answer.
    pub(crate) async fn get(&self, wanted: &Wanted) -> Result<Arc<Image>, Failed> {
        let key = (wanted.reference.clone(), wanted.manifest);
        let (cell, failure) = {
            let mut known = self.known.lock();
            known.retain(|_, entry| entry.since.elapsed() < FRESH);
            if known.len() >= IMAGES_MAX
                && let Some(oldest) = known
                    .iter()
                    .min_by_key(|(_, entry)| entry.since)
                    .map(|(key, _)| key.clone())
            {
                known.remove(&oldest);
            }
            let entry = known.entry(key).or_insert_with(|| Entry {
                since: Instant::now(),
                image: Arc::default(),
                failed: Arc::default(),
            });
            (Arc::clone(&entry.image), Arc::clone(&entry.failed))
        };
        let open = async || {
            if let Some((when, why)) = &*failure.lock()
                && when.elapsed() < FAILED
            {
                return Err(why.clone());
            }
            let opened = self.open(wanted).await;
            if let Err(why) = &opened {
                *failure.lock() = Some((Instant::now(), why.clone()));
            }
            opened
        };
        let image = cell.get_or_try_init(open).await?;
        Ok(Arc::clone(image))
    }

    /// Lets go of what is not fresh any more, with its connections.
    pub(crate) fn expire(&self) {
        let mut known = self.known.lock();
        known.retain(|_, entry| entry.since.elapsed() < FRESH);
        let mut young = self.young.lock();
        young.retain(|_, since| since.elapsed() < FRESH);
    }

    async fn open(&self, wanted: &Wanted) -> Result<Arc<Image>, Failed> {
        let reference: Reference = wanted
            .reference
            .parse()
            .map_err(|error| failed(format!("its reference can't be used: {error}")))?;
        let asked = match wanted.manifest {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        };
        let fetched = self.node.fetch(origin(&asked.to_string())).await;
        let fetched = fetched.map_err(|error| failed(error.to_string()))?;
        let layers = self.judge(&fetched).await?;
        Ok(Arc::new(Image {
            reference: pinned(&reference, fetched.digest()),
            fetched,
            layers,
        }))
    }

    /// What becomes of each layer; what is lazy is kept in the store afterwards. An error may not be one the next time.
    async fn judge(&self, fetched: &Fetched) -> Result<Vec<(Digest, Verdict)>, Failed> {
        let layers = &fetched.manifest().layers;
        let all = |verdict: &dyn Fn() -> Verdict| {
            let each = layers.iter().map(|layer| (layer.digest, verdict()));
            each.collect::<Vec<_>>()
        };
        Ok(match detect(fetched.manifest()) {
            Format::Nydus { bootstrap, .. } => {
                let kept = self.keep(fetched, Content::Whole, fetched.digest());
                match kept.await {
                    Ok(()) => {}
                    Err((Some(_), why)) => return Ok(all(&|| Verdict::Never(why.clone()))),
                    Err((None, why)) => {
                        let is_never_plain = true;
                        return Err(Failed {
                            why,
                            is_never_plain,
                        });
                    }
                }
                let verdict = |digest: Digest| {
                    if digest == bootstrap.digest {
                        Verdict::Lazy(Role::Whole)
                    } else {
                        Verdict::Lazy(Role::Data)
                    }
                };
                let each = layers.iter().map(|layer| layer.digest);
                each.map(|digest| (digest, verdict(digest))).collect()
            }
            Format::Unsupported { why } => all(&|| Verdict::Eager(why.clone())),
            Format::Plain(plain) if plain.hinders.is_none() => {
                all(&|| Verdict::Eager(plain.why_not_lazy()))
            }
            Format::Estargz { .. } | Format::Plain(_) => self.judge_layers(fetched).await?,
        })
    }

    async fn judge_layers(&self, fetched: &Fetched) -> Result<Vec<(Digest, Verdict)>, Failed> {
        let layers = &fetched.manifest().layers;
        let first = layers.iter().map(|layer| {
            let verdict = match estargz_toc(layer) {
                Some(toc) => Verdict::Lazy(Role::Layer {
                    toc,
                    bytes: layer.size,
                }),
                None => Verdict::Eager(
                    "it has no table of contents that can be read here; convert the image to have one".to_owned(),
                ),
            };
            (layer.digest, verdict)
        });
        let mut verdicts: Vec<(Digest, Verdict)> = first.collect();
        // Each round takes one layer out, or ends.
        for _ in 0..=layers.len() {
            let gathered = gather(&verdicts);
            if gathered.parts.is_empty() {
                break;
            }
            let image = gathered.digest();
            let content = Content::Parts(gathered.parts);
            let (blamed, why) = match self.keep(fetched, content, image).await {
                Ok(()) => break,
                Err((None, why)) => return Err(failed(why)),
                Err((Some(blamed), why)) => (blamed, why),
            };
            let blamed = |(digest, verdict): &&mut (Digest, Verdict)| {
                matches!(verdict, Verdict::Lazy(_)) && *digest == blamed
            };
            for (_, verdict) in verdicts.iter_mut().filter(blamed) {
                *verdict = Verdict::Eager(why.clone());
            }
        }
        Ok(verdicts)
    }

    /// Keeps layers in the store. Unless a snapshot wants them soon, they are removed again. If they can't be kept,
    /// says why, and because of which layer.
    pub(crate) async fn keep(
        &self,
        fetched: &Fetched,
        content: Content,
        digest: Digest,
    ) -> Result<(), (Option<Digest>, Reason)> {
        let text = digest.to_string();
        let doomed = self.state.change(move |records, _| {
            let doom = if records.wants_image(&digest) {
                Vec::new()
            } else {
                vec![text]
            };
            let change = Change {
                doom,
                ..Change::default()
            };
            Ok((change, ()))
        });
        doomed.await.map_err(|error| (None, error.to_string()))?;
        self.young.lock().insert(digest, Instant::now());
        let kept = self.node.keep(fetched, content, digest).await;
        kept.map_err(|error| (error.layer, error.to_string()))
    }

    /// Whether a snapshot may still be about to want what is kept under this digest.
    pub(crate) fn is_young(&self, digest: &Digest) -> bool {
        let young = self.young.lock();
        young
            .get(digest)
            .is_some_and(|since| since.elapsed() < FRESH)
    }

    /// A snapshot that wanted what is kept under this digest is gone: nobody is about to want it.
    pub(crate) fn outgrow(&self, digest: &Digest) {
        self.young.lock().remove(digest);
    }

    /// An image that is being pulled whose lazy layers begin with exactly these parts, and have more: it is mounted
    /// soon anyhow, and these are directories of it.
    pub(crate) fn with_more(&self, parts: &[Part]) -> Option<(Arc<Image>, Layers)> {
        let known = self.known.lock();
        let images = known.values().filter_map(|entry| entry.image.get());
        let with_layers = images.map(|image| (Arc::clone(image), gather(&image.layers)));
        let mut longer = with_layers.filter(|(_, layers)| layers.parts.len() > parts.len());
        longer.find(|(_, layers)| layers.parts.starts_with(parts))
    }

    /// Forgets what was decided of all images: some of it may not be kept any more.
    pub(crate) fn forget_all(&self) {
        self.known.lock().clear();
    }

    /// Forgets what was decided of an image.
    pub(crate) fn forget(&self, wanted: &Wanted) {
        let key = (wanted.reference.clone(), wanted.manifest);
        self.known.lock().remove(&key);
    }
}

/// The layers among these that are lazy, in parts.
fn gather(verdicts: &[(Digest, Verdict)]) -> Layers {
    let mut layers = Layers::default();
    verdicts.iter().for_each(|layer| add(&mut layers, layer));
    layers
}

/// A layer onto those, or a gap.
fn add(layers: &mut Layers, (blob, verdict): &(Digest, Verdict)) {
    match verdict {
        Verdict::Lazy(Role::Layer { toc, bytes }) => layers.push(*blob, *bytes, *toc),
        _ => layers.gap(),
    }
}

/// A reference that means one image for ever.
fn pinned(reference: &Reference, manifest: Digest) -> String {
    match reference.tag() {
        Some(tag) => format!("{}:{tag}@{manifest}", reference.name()),
        None => reference.with_digest(manifest).to_string(),
    }
}

/// Where an image comes from, with what the daemon is told of credentials and hosts.
pub(crate) fn origin(reference: &str) -> Origin {
    Origin {
        reference: reference.to_owned(),
        plain_http: Vec::new(),
        credentials: Vec::new(),
        blob_backend: None,
    }
}
