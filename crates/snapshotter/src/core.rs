//! What a snapshotter does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_containerd::types::Mount;
use draught_digest::Digest;
use draught_node::{Content, Node};

use crate::counts::Counts;
use crate::directories::Directories;
use crate::error::{Error, Result};
use crate::images::{Image, Images, Verdict};
use crate::labels::{Ask, REMOTE_LABEL, REMOTE_VALUE, Wanted, read};
use crate::mounted::Mounted;
use crate::mounts::{has_index, mount};
use crate::record::{Eager, Kind, Labels, Lazy, Record, Role, now};
use crate::records::{Change, Records};
use crate::recover::{Found, Recovery};
use crate::run::Settings;
use crate::stack::{Layers, Level, Stack};
use crate::state::State;

/// Bytes of a label's key and value together, as containerd has it.
const LABEL_BYTES_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) directories: Directories,
    pub(crate) images: Images,
    pub(crate) mounted: Mounted,
    pub(crate) counts: Counts,
    recovery: Option<Recovery>,
    has_index: bool,
}

/// What a layer that a client asked for becomes.
enum Decision {
    /// It is committed, under this name.
    Ready,
    /// The client pulls it.
    Pull(Option<Eager>),
}

impl Core {
    pub(crate) fn open(node: &Node, settings: Settings) -> Result<Self> {
        let root = node.layout().root().join("snapshotter");
        if root.to_string_lossy().contains([':', ',', '\\']) || root.to_str().is_none() {
            // Overlayfs takes its directories as one text.
            return Err(Error::Request {
                problem: format!(
                    "{root:?} has a character that overlayfs' options can't hold: use another --root"
                ),
            });
        }
        let directories = Directories::new(root)?;
        let state = State::open(&directories.database())?;
        let images = Images::new(node.clone(), state.clone());
        let mounted = Mounted::new(node.clone(), directories.images());
        let core = Self {
            state,
            directories,
            images,
            mounted,
            counts: Counts::default(),
            recovery: settings.containerd.map(Recovery::new),
            has_index: has_index(),
        };
        core.discard_orphans()?;
        Ok(core)
    }

    /// Directories of snapshots that nobody wrote down, or whose removal was not seen through.
    fn discard_orphans(&self) -> Result<()> {
        let known: std::collections::HashSet<u64> = {
            let records = self.state.look();
            records.iter().map(|(_, record)| record.id).collect()
        };
        let failed = Error::io("look at the snapshots' directories");
        for id in self.directories.list().map_err(failed)? {
            if !known.contains(&id) {
                self.directories
                    .discard(id)
                    .map_err(Error::io("discard a directory"))?;
            }
        }
        Ok(())
    }

    /// Makes a snapshot to write into, or to look at; or commits it at once, if it is a layer that is served.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        kind: Kind,
        key: String,
        parent: String,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        check_name(&key)?;
        check_labels(&labels)?;
        self.ensure(&parent).await;
        let mut eager = None;
        if kind == Kind::Active {
            match self.decide(&key, &parent, &labels).await? {
                Decision::Ready => {
                    let name = labels.get(crate::records::REF_LABEL).cloned();
                    return Err(Error::Ready {
                        name: name.unwrap_or_default(),
                    });
                }
                Decision::Pull(why) => eager = why,
            }
        }
        let (stack, below) = {
            let records = self.state.look();
            if records.get(&key).is_some() {
                return Err(Error::Exists { name: key });
            }
            let chain = committed_chain(&records, &parent)?;
            (
                Stack::of(chain.iter().map(|(_, record)| *record)),
                chain.len(),
            )
        };
        let lower = self.lower(&parent, stack).await?;
        let root = lower.first().cloned();
        let directories = self.directories.clone();
        let made = self.state.change(move |records, new_id| {
            if records.get(&key).is_some() {
                return Err(Error::Exists { name: key });
            }
            // It may have gone while we mounted what is below.
            if committed_chain(records, &parent)?.len() != below {
                return Err(Error::NoSnapshot { name: parent });
            }
            let id = new_id();
            directories
                .make(id, kind == Kind::Active, root.as_deref())
                .map_err(Error::io("make a snapshot's directories"))?;
            let record = Record {
                id,
                kind,
                parent,
                labels,
                created: now(),
                updated: now(),
                bytes: 0,
                inodes: 0,
                lazy: None,
                eager,
            };
            let change = Change {
                put: Some((key, record)),
                ..Change::default()
            };
            Ok((change, id))
        });
        let id = made.await?;
        Ok(vec![self.mount(kind, id, &lower)])
    }

    /// Brings a lazy snapshot back that clients know and that was lost here, if its image can still be had.
    pub(crate) async fn ensure(self: &Arc<Self>, name: &str) {
        let Some(recovery) = &self.recovery else {
            return;
        };
        if name.is_empty() || self.state.look().get(name).is_some() {
            return;
        }
        for Found { wanted, parent } in recovery.find(name).await {
            if self.state.look().get(&wanted.target).is_some() {
                continue;
            }
            let labels = wanted.labels();
            let decided = self.decide(&wanted.target, &parent, &labels).await;
            match decided {
                Ok(Decision::Ready) => {
                    let (snapshot, image) = (&wanted.target, &wanted.reference);
                    tracing::warn!(
                        snapshot,
                        image,
                        "a lost snapshot was brought back from its image"
                    );
                }
                Ok(Decision::Pull(_)) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        snapshot = wanted.target,
                        error,
                        "a lost snapshot stays lost"
                    );
                    return;
                }
            }
        }
    }

    fn mount(&self, kind: Kind, id: u64, lower: &[PathBuf]) -> Mount {
        let (files, work) = (self.directories.files(id), self.directories.work(id));
        mount(kind, &files, &work, lower, self.has_index)
    }

    /// Whether a snapshot that is to be prepared is a layer that is served; then it is committed.
    async fn decide(
        self: &Arc<Self>,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Decision> {
        let wanted = match read(labels, parent) {
            Ask::Nothing => return Ok(Decision::Pull(None)),
            Ask::Vague {
                reference,
                layer,
                why,
            } => {
                let eager = Eager {
                    reference,
                    blob: layer,
                    why,
                };
                return Ok(self.pull(key, eager));
            }
            Ask::Layer(wanted) => wanted,
        };
        let eager = |why: String| Eager {
            reference: wanted.reference.clone(),
            blob: Some(wanted.layer.to_string()),
            why,
        };
        let image = match self.images.get(&wanted).await {
            Ok(image) => image,
            Err(failed) if failed.is_never_plain => return Err(never(key, &wanted, failed.why)),
            Err(failed) => {
                let why = format!("the image can't be had here: {}", failed.why);
                return Ok(self.pull(key, eager(why)));
            }
        };
        let (blob, reference) = (wanted.layer, image.reference.clone());
        let lazy = |role, key| Lazy {
            reference,
            manifest: image.fetched.digest(),
            blob,
            image: key,
            role,
        };
        let lazy = match self.verdict(&image, &wanted, parent)? {
            Verdict::Lazy(Role::Layer { toc, bytes }) => {
                let layers = self.layers_with(parent, blob, bytes, toc)?;
                let digest = layers.digest();
                if let Err(why) = self.check_layers(&image, layers).await {
                    return Ok(self.pull(key, eager(why)));
                }
                lazy(Role::Layer { toc, bytes }, digest)
            }
            Verdict::Lazy(role) => lazy(role, image.fetched.digest()),
            Verdict::Eager(why) => return Ok(self.pull(key, eager(why))),
            Verdict::Never(why) => return Err(never(key, &wanted, why)),
        };
        self.commit_lazy(&wanted, parent.to_owned(), labels, lazy, &image)
            .await?;
        Ok(Decision::Ready)
    }

    /// Notes that a client has to pull a layer.
    fn pull(&self, key: &str, eager: Eager) -> Decision {
        tracing::warn!(
            snapshot = key,
            image = eager.reference,
            layer = eager.blob.as_deref().unwrap_or("unknown"),
            why = eager.why,
            "a layer is not lazy: the client pulls it"
        );
        self.counts.pulled();
        Decision::Pull(Some(eager))
    }

    /// What was decided of a layer. An image may have the same one several times: how many snapshots lie below says
    /// which is meant, if each layer has one.
    fn verdict(&self, image: &Image, wanted: &Wanted, parent: &str) -> Result<Verdict> {
        let below = committed_chain(&self.state.look(), parent)?.len();
        let is_it = |(digest, _): &&(Digest, Verdict)| *digest == wanted.layer;
        let there = image.layers.get(below).filter(is_it);
        let verdict = there.or_else(|| image.layers.iter().find(is_it));
        Ok(verdict.map_or_else(
            || {
                self.images.forget(wanted);
                let why = "the image has no such layer (any more): did its tag move meanwhile?";
                Verdict::Eager(why.to_owned())
            },
            |(_, verdict)| verdict.clone(),
        ))
    }

    /// The lazy layers of a chain, with one more on top.
    fn layers_with(&self, parent: &str, blob: Digest, bytes: u64, toc: Digest) -> Result<Layers> {
        let records = self.state.look();
        let mut layers = Layers::default();
        for (_, record) in committed_chain(&records, parent)? {
            match record.lazy.as_ref().map(|lazy| (lazy.blob, &lazy.role)) {
                Some((blob, Role::Layer { toc, bytes })) => layers.push(blob, *bytes, *toc),
                Some((_, Role::Data)) => {}
                Some((_, Role::Whole)) | None => layers.gap(),
            }
        }
        layers.push(blob, bytes, toc);
        Ok(layers)
    }

    /// Checks that layers as they really lie on each other can be mounted, unless that is how the image was judged;
    /// says why not.
    async fn check_layers(&self, image: &Image, layers: Layers) -> std::result::Result<(), String> {
        if image.was_judged_with(&layers.parts) {
            return Ok(());
        }
        let manifest = &image.fetched.manifest().layers;
        let is_foreign = |blob| manifest.iter().all(|layer| layer.digest != blob);
        let mut blobs = layers.parts.iter().flat_map(|part| &part.layers);
        if blobs.any(|(layer, _)| is_foreign(layer.digest)) {
            return Err("a layer below is there from another image, packed differently".to_owned());
        }
        let digest = layers.digest();
        let content = Content::Parts(layers.parts);
        let kept = self.images.keep(&image.fetched, content, digest).await;
        kept.map_err(|(_, why)| why)
    }

    async fn commit_lazy(
        self: &Arc<Self>,
        wanted: &Wanted,
        parent: String,
        labels: &Labels,
        lazy: Lazy,
        image: &Image,
    ) -> Result<()> {
        let mut labels = labels.clone();
        labels.insert(REMOTE_LABEL.to_owned(), REMOTE_VALUE.to_owned());
        let target = wanted.target.clone();
        let (key, blob, role) = (lazy.image, lazy.blob, lazy.role.clone());
        let committed = self.state.change(move |records, new_id| {
            committed_chain(records, &parent)?;
            let mut same = records.wanted_as(&target);
            let is_same = |name: &&String| {
                let record = records.get(name);
                record.is_some_and(|record| {
                    record.parent == parent
                        && record.lazy.as_ref().is_some_and(|it| it.blob == lazy.blob)
                })
            };
            if same.any(|name| is_same(&name)) {
                return Ok((Change::default(), None));
            }
            let name = free_name(records, &target, &lazy);
            let record = Record {
                id: new_id(),
                kind: Kind::Committed,
                parent,
                labels,
                created: now(),
                updated: now(),
                bytes: 0,
                inodes: 0,
                lazy: Some(lazy.clone()),
                eager: None,
            };
            let change = Change {
                put: Some((name.clone(), record)),
                spare: vec![lazy.image.to_string()],
                ..Change::default()
            };
            Ok((change, Some(name)))
        });
        let Some(name) = committed.await? else {
            return Ok(());
        };
        tracing::info!(snapshot = name, image = image.reference, layer = %blob, "a layer is lazy");
        self.counts.served();
        let last = image.layers.last().is_some_and(|(last, _)| *last == blob);
        if last || role == Role::Whole {
            // The pull is over: whoever starts next finds it mounted, and what it wants first under way.
            let core = Arc::clone(self);
            drop(tokio::spawn(async move {
                let chain = core.stack_of(&name);
                let Ok(stack) = chain else { return };
                if let Err(error) = core.lower(&name, stack).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(image = %key, error, "an image could not be mounted ahead");
                }
            }));
        }
        Ok(())
    }

    fn stack_of(&self, name: &str) -> Result<Stack> {
        let records = self.state.look();
        let chain = records.chain(name)?;
        Ok(Stack::of(chain.iter().map(|(_, record)| *record)))
    }

    /// Mounts what a stack needs; gives its directories, the uppermost first.
    async fn lower(&self, name: &str, stack: Stack) -> Result<Vec<PathBuf>> {
        let stack = self.widened(stack);
        let mut images = Vec::new();
        for needed in &stack.images {
            let dir = self.mounted.get(needed, &self.images).await;
            images.push(dir.map_err(|why| Error::Unavailable {
                name: name.to_owned(),
                why,
            })?);
        }
        let image = |index: &usize| images.get(*index).cloned().unwrap_or_default();
        let paths = stack.levels.iter().rev().map(|level| match level {
            Level::Files(id) => self.directories.files(*id),
            Level::Image(index) => image(index),
            Level::Part(index, part) => image(index).join(part.to_string()),
        });
        Ok(paths.collect())
    }

    /// The same, from images that are mounted soon anyhow where those have all that is needed.
    fn widened(&self, mut stack: Stack) -> Stack {
        for index in 0..stack.images.len() {
            let Some(needed) = stack.images.get(index) else {
                continue;
            };
            let Content::Parts(parts) = &needed.content else {
                continue;
            };
            if self.mounted.is_known(&needed.digest) {
                continue;
            }
            if let Some((image, layers)) = self.images.with_more(parts) {
                stack.take_from(index, &image.reference, layers);
            }
        }
        stack
    }

    /// How a snapshot is mounted.
    pub(crate) async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let (id, kind, parent, stack) = {
            let records = self.state.look();
            let record = records.need(key)?;
            if record.kind == Kind::Committed {
                return Err(Error::State {
                    name: key.to_owned(),
                    problem: "is committed: prepare a snapshot on it",
                });
            }
            let chain = match record.parent.as_str() {
                "" => Vec::new(),
                parent => records.chain(parent)?,
            };
            let stack = Stack::of(chain.iter().map(|(_, record)| *record));
            (record.id, record.kind, record.parent.clone(), stack)
        };
        let lower = self.lower(&parent, stack).await?;
        Ok(vec![self.mount(kind, id, &lower)])
    }

    /// Commits an active snapshot under another name.
    pub(crate) async fn commit(
        &self,
        name: String,
        key: String,
        labels: Labels,
        parent: String,
    ) -> Result<()> {
        check_name(&name)?;
        check_labels(&labels)?;
        let id = {
            let records = self.state.look();
            committable(&records, &name, &key, &parent)?.id
        };
        let (bytes, inodes) = self.measure(id).await?;
        self.state
            .change(move |records, _| {
                let active = committable(records, &name, &key, &parent)?;
                let mut record = active.clone();
                if record.parent.is_empty() && !parent.is_empty() {
                    committed_chain(records, &parent)?;
                    record.parent = parent;
                }
                record.kind = Kind::Committed;
                record.labels = labels;
                record.created = now();
                record.updated = record.created;
                (record.bytes, record.inodes) = (bytes, inodes);
                let change = Change {
                    remove: Some(key),
                    put: Some((name, record)),
                    ..Change::default()
                };
                Ok((change, ()))
            })
            .await
    }

    async fn measure(&self, id: u64) -> Result<(u64, u64)> {
        let directories = self.directories.clone();
        let measured = off_runtime(move || directories.usage(id)).await?;
        measured.map_err(Error::io("measure a snapshot's files"))
    }

    /// Removes a snapshot on which none stands.
    pub(crate) async fn remove(self: &Arc<Self>, key: String) -> Result<()> {
        let directories = self.directories.clone();
        let removed = self.state.change(move |records, _| {
            let record = records.need(&key)?;
            if records.has_children(&key) {
                return Err(Error::State {
                    name: key,
                    problem: "can't be removed: others stand on it",
                });
            }
            let id = record.id;
            let lazy = record.lazy.as_ref();
            let doom = lazy.filter(|lazy| records.is_last_to_want(&lazy.image));
            let change = Change {
                doom: doom
                    .map(|lazy| lazy.image.to_string())
                    .into_iter()
                    .collect(),
                remove: Some(key),
                ..Change::default()
            };
            Ok((change, (id, lazy.map(|lazy| lazy.image))))
        });
        let (id, image) = removed.await?;
        if let Some(image) = image {
            self.images.outgrow(&image);
        } else {
            // Found again at the next start, if this fails.
            directories
                .discard(id)
                .map_err(Error::io("discard a snapshot's directory"))?;
        }
        let core = Arc::clone(self);
        drop(tokio::spawn(async move { core.clean().await }));
        Ok(())
    }

    /// Frees what removed snapshots have left.
    pub(crate) async fn clean(&self) {
        self.images.expire();
        let directories = self.directories.clone();
        match off_runtime(move || directories.empty_trash()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a removed snapshot's files stay for now"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "removed snapshots' files stay for now");
            }
        }
        let doomed = self.state.look().doomed();
        for text in doomed {
            let Ok(digest) = text.parse() else { continue };
            let is_wanted =
                || self.state.look().wants_image(&digest) || self.images.is_young(&digest);
            if is_wanted() || !self.mounted.forget(&digest, &is_wanted).await {
                continue;
            }
            self.images.forget_all();
            let spared = self.state.change(move |_, _| {
                let change = Change {
                    spare: vec![text],
                    ..Change::default()
                };
                Ok((change, ()))
            });
            if let Err(error) = spared.await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what is removed stays listed");
            }
        }
    }

    /// Changes labels.
    pub(crate) async fn update(
        &self,
        name: String,
        labels: Labels,
        paths: Vec<String>,
    ) -> Result<Record> {
        check_labels(&labels)?;
        self.state
            .change(move |records, _| {
                let mut record = records.need(&name)?.clone();
                if paths.is_empty() {
                    record.labels = labels;
                } else {
                    for path in &paths {
                        match path.strip_prefix("labels.") {
                            Some(key) => match labels.get(key) {
                                Some(value) => {
                                    record.labels.insert(key.to_owned(), value.clone());
                                }
                                None => drop(record.labels.remove(key)),
                            },
                            None if path == "labels" => record.labels.clone_from(&labels),
                            None => {
                                return Err(Error::Request {
                                    problem: format!(
                                        "field {path:?} of a snapshot can't be changed: only labels can"
                                    ),
                                });
                            }
                        }
                    }
                }
                record.updated = now();
                let change = Change {
                    put: Some((name, record.clone())),
                    ..Change::default()
                };
                Ok((change, record))
            })
            .await
    }

    /// What a snapshot takes on disk by itself: bytes and inodes.
    pub(crate) async fn usage(&self, key: &str) -> Result<(u64, u64)> {
        let record = self.state.look().need(key)?.clone();
        match (&record.lazy, record.kind) {
            (Some(lazy), _) => Ok((self.mounted.bytes_present(lazy), 0)),
            (None, Kind::Committed) => Ok((record.bytes, record.inodes)),
            (None, _) => self.measure(record.id).await,
        }
    }
}

/// A layer can't be had, neither lazily nor by its client.
fn never(key: &str, wanted: &Wanted, why: String) -> Error {
    let (image, layer) = (&wanted.reference, wanted.layer);
    tracing::error!(snapshot = key, image, %layer, why, "a layer can't be had");
    Error::Unavailable {
        name: key.to_owned(),
        why,
    }
}

/// The snapshots from the lowest to one that others may stand on; none, if the name is empty.
fn committed_chain<'a>(records: &'a Records, name: &str) -> Result<Vec<(&'a str, &'a Record)>> {
    let chain = records.chain(name)?;
    match chain.last() {
        Some((name, record)) if record.kind != Kind::Committed => Err(Error::Request {
            problem: format!("snapshot {name:?} is not committed: nothing can stand on it"),
        }),
        _ => Ok(chain),
    }
}

/// An active snapshot, if it may be committed like this.
fn committable<'a>(
    records: &'a Records,
    name: &str,
    key: &str,
    parent: &str,
) -> Result<&'a Record> {
    let record = records.need(key)?;
    if record.kind != Kind::Active {
        return Err(Error::State {
            name: key.to_owned(),
            problem: "is not active",
        });
    }
    if records.get(name).is_some() {
        return Err(Error::Exists {
            name: name.to_owned(),
        });
    }
    if !parent.is_empty() && !record.parent.is_empty() && record.parent != parent {
        let was = &record.parent;
        return Err(Error::Request {
            problem: format!(
                "snapshot {key:?} was prepared on {was:?} and is to be committed on {parent:?}"
            ),
        });
    }
    if !parent.is_empty() && records.need(parent)?.kind != Kind::Committed {
        return Err(Error::State {
            name: parent.to_owned(),
            problem: "is not committed: nothing can stand on it",
        });
    }
    Ok(record)
}

/// A name for a lazy layer: the one that its client finds it by, unless that is taken by a layer with other content.
/// A manifest may claim any chain for its layers; nobody else's image is to get these.
fn free_name(records: &Records, target: &str, lazy: &Lazy) -> String {
    if records.get(target).is_none() {
        return target.to_owned();
    }
    let with_blob = format!("{target}@{}", lazy.blob);
    let numbered = (2..).map(|number| format!("{with_blob}-{number}"));
    let mut names = std::iter::once(with_blob.clone()).chain(numbered);
    let free = names.find(|name| records.get(name).is_none());
    free.unwrap_or(with_blob)
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        let problem = "a snapshot needs a name".to_owned();
        return Err(Error::Request { problem });
    }
    Ok(())
}

fn check_labels(labels: &Labels) -> Result<()> {
    for (key, value) in labels {
        if key.len() + value.len() > LABEL_BYTES_MAX {
            return Err(Error::Request {
                problem: format!(
                    "label {key:?} and its value have more than {LABEL_BYTES_MAX} bytes"
                ),
            });
        }
    }
    Ok(())
}

/// Does what waits for disks in a thread of its own: those of the runtime fill.
pub(crate) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("draught-files".to_owned())
        .spawn(move || {
            // Who asked may have hung up.
            let _nobody_waits = sender.send(work());
        })
        .map_err(Error::io("start a thread"))?;
    receiver.await.map_err(|_| Error::Io {
        what: "finish in a thread",
        source: std::io::ErrorKind::BrokenPipe.into(),
    })
}

/// Whether a path is the root of a mount of its own, told by its device's number.
pub(crate) fn device_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs_err::metadata(path).ok().map(|meta| meta.dev())
}
