//! Holding a conversation again.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use draught_containerd::snapshots::{Info, Kind};
use draught_containerd::tonic::Status;
use draught_containerd::types::Mount;

use super::compare::{Difference, Got, compare};
use super::image::Image;
use super::mapping::{Mapping, recorded};
use super::relations::Relations;
use super::trace::{Answer, Call, Line, Trace};
use crate::compare::{Snapshot, diff, snapshot_dir};
use crate::snapshots::{Labels, Shape, Snapshots, Target, Whiteouts, mount_all, unpack};
use crate::{Scratch, need};

/// What a committed build step adds, so that it is not empty.
const STEP: &str = "replayed";

/// Differences of a tree that are told; there may be thousands.
const TREE_DIFFERENCES_MAX: usize = 10;

/// How a trace is replayed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Labels that begin so are the snapshotter's own business.
    pub own_labels: Option<String>,
    /// What is in the root of the image: compared with what is mounted on top of all its layers.
    pub tree: Option<Snapshot>,
}

/// What a replay found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The name of the trace.
    pub trace: String,
    /// Lines that were asked.
    pub lines: usize,
    /// How often mounts that were answered have been mounted.
    pub mounted: usize,
    /// Layers that were unpacked into them.
    pub unpacked: usize,
    /// How often what was mounted was compared with the image's tree.
    pub trees: usize,
    /// What was different.
    pub differences: Vec<Difference>,
    /// Set to the line after which the conversation makes no sense any more: one side took for a lazy layer
    /// what the other did not.
    pub stopped_at: Option<usize>,
}

impl Report {
    /// Fails with all differences.
    ///
    /// # Panics
    ///
    /// If there are any.
    #[track_caller]
    pub fn assert_same(&self) {
        let lines: Vec<String> = self.differences.iter().map(ToString::to_string).collect();
        assert!(
            lines.is_empty() && self.stopped_at.is_none(),
            "{}: {} differences, stopped: {:?}\n{}",
            self.trace,
            lines.len(),
            self.stopped_at,
            lines.join("\n")
        );
    }
}

/// Asks everything that a trace asks, of an image that stands for the one of the trace.
///
/// The snapshotter must not know the names of the trace yet. Whether its layers are lazy is for whoever
/// made the image to arrange, as it was when the trace was recorded. Layers are unpacked whose blobs the
/// image has.
///
/// # Errors
///
/// If the image can't stand for the one of the trace, nobody listens, or something here goes wrong: not for
/// a wrong answer.
pub fn replay(trace: &Trace, image: &Image, target: &Target, options: &Options) -> Result<Report> {
    let mapping = Mapping::between(&recorded::image(trace), image)?;
    let trace = mapping.trace(trace);
    let mut replaying = Replaying {
        client: Snapshots::connect(target)?,
        image,
        options,
        relations: Relations::new(),
        known: BTreeMap::new(),
        scratch: Scratch::new(),
        report: Report {
            trace: trace.name.clone(),
            ..Report::default()
        },
    };
    for line in &trace.lines {
        let went_on = replaying.line(line);
        if !went_on.with_context(|| format!("failed to replay line {}", line.number))? {
            replaying.report.stopped_at = Some(line.number);
            break;
        }
    }
    Ok(replaying.report)
}

/// What is known of a snapshot that can be mounted.
#[derive(Debug, Clone)]
struct Known {
    parent: String,
    mounts: Vec<Mount>,
}

struct Replaying<'a> {
    client: Snapshots,
    image: &'a Image,
    options: &'a Options,
    relations: Relations,
    /// By the key here.
    known: BTreeMap<String, Known>,
    scratch: Scratch,
    report: Report,
}

impl Replaying<'_> {
    /// Asks what a line asks; whether the conversation can go on.
    fn line(&mut self, line: &Line) -> Result<bool> {
        let sent = Line {
            call: self.here(&line.call),
            ..line.clone()
        };
        let mut words = Vec::new();
        if let Call::Commit { key, name, .. } = &sent.call {
            // What can't be mounted or written to is the snapshotter's fault.
            let filled = self.fill(key, name);
            words.extend(filled.err().map(|error| format!("{error:#}")));
        }
        let got = self.ask(&sent);
        self.report.lines += 1;
        self.learn(&line.call, &sent.call, &got);
        let own = self.options.own_labels.as_deref();
        words.extend(compare(&sent, &got, &mut self.relations, own));
        if let Got::Mounts(mounts) = &got {
            words.extend(self.look(&sent.call, mounts)?);
        }
        if let (Call::Usage { key }, Got::Usage { size, inodes }) = (&sent.call, &got) {
            words.extend(self.usage(key, *size, *inodes)?);
        }
        let refused = |it: &Got| matches!(it, Got::Refused(..));
        let astray = matches!(line.call, Call::Prepare { .. })
            && matches!(line.answer, Answer::Refused(_)) != refused(&got);
        for words in words {
            self.report.differences.push(Difference {
                line: line.number,
                call: line.call.name().to_owned(),
                words,
            });
        }
        Ok(!astray)
    }

    /// The call with the names of snapshots here.
    fn here(&mut self, call: &Call) -> Call {
        let mut here = |name: &String| self.relations.here(name);
        match call {
            Call::Prepare {
                key,
                parent,
                labels,
            } => Call::Prepare {
                key: key.clone(),
                parent: here(parent),
                labels: labels.clone(),
            },
            Call::View {
                key,
                parent,
                labels,
            } => Call::View {
                key: key.clone(),
                parent: here(parent),
                labels: labels.clone(),
            },
            Call::Mounts { key } => Call::Mounts { key: here(key) },
            Call::Commit {
                key,
                name,
                parent,
                labels,
            } => Call::Commit {
                key: here(key),
                name: name.clone(),
                parent: here(parent),
                labels: labels.clone(),
            },
            Call::Remove { key } => Call::Remove { key: here(key) },
            Call::Stat { key } => Call::Stat { key: here(key) },
            Call::Update { name, labels, mask } => Call::Update {
                name: here(name),
                labels: labels.clone(),
                mask: mask.clone(),
            },
            Call::List { filters } => Call::List {
                filters: filters.iter().map(|it| self.filter(it)).collect(),
            },
            Call::Usage { key } => Call::Usage { key: here(key) },
            Call::Cleanup => Call::Cleanup,
        }
    }

    /// A filter with the name here of the parent that it asks for.
    fn filter(&mut self, filter: &str) -> String {
        const PARENT: &str = "parent==\"";
        let Some((before, rest)) = filter.split_once(PARENT) else {
            return filter.to_owned();
        };
        let (name, after) = rest.split_once('"').unwrap_or((rest, ""));
        format!("{before}{PARENT}{}\"{after}", self.relations.here(name))
    }

    fn ask(&self, line: &Line) -> Got {
        let client = self.client.with(line.namespace.as_deref(), &{
            // Leases of the recording machine are held by nobody here; those of the target are.
            self.client.target().leases.clone()
        });
        let mounts = |answer: Result<Vec<Mount>, Status>| answer.map(Got::Mounts);
        let done = |answer: Result<(), Status>| answer.map(|()| Got::Done);
        let info = |answer: Result<Info, Status>| answer.map(|info| Got::Info(Box::new(info)));
        let answer = match &line.call {
            Call::Prepare {
                key,
                parent,
                labels,
            } => mounts(client.prepare(key, parent, labels)),
            Call::View {
                key,
                parent,
                labels,
            } => mounts(client.view(key, parent, labels)),
            Call::Mounts { key } => mounts(client.mounts(key)),
            Call::Commit {
                key,
                name,
                parent,
                labels,
            } => done(client.commit(name, key, labels, parent)),
            Call::Remove { key } => done(client.remove(key)),
            Call::Stat { key } => info(client.stat(key)),
            Call::Update { name, labels, mask } => info(client.update(named(name, labels), mask)),
            Call::List { filters } => client.list(filters).map(Got::Listed),
            Call::Usage { key } => client.usage(key).map(|usage| Got::Usage {
                size: usage.size,
                inodes: usage.inodes,
            }),
            Call::Cleanup => done(client.cleanup()),
        };
        answer.unwrap_or_else(|status| Got::Refused(status.code(), status.message().to_owned()))
    }

    /// Notes which snapshots there are now.
    fn learn(&mut self, recorded: &Call, sent: &Call, got: &Got) {
        match (recorded, sent, got) {
            (
                Call::Prepare { key, parent, .. } | Call::View { key, parent, .. },
                _,
                Got::Mounts(mounts),
            ) => {
                self.relations.name(key);
                let (parent, mounts) = (parent.clone(), mounts.clone());
                self.known.insert(key.clone(), Known { parent, mounts });
            }
            (Call::Commit { key, name, .. }, Call::Commit { key: sent, .. }, Got::Done) => {
                self.relations.forget(key);
                self.relations.name(name);
                self.known.remove(sent);
            }
            (Call::Remove { key }, Call::Remove { key: sent }, Got::Done) => {
                self.relations.forget(key);
                self.known.remove(sent);
            }
            _ => {}
        }
    }

    /// Puts into a snapshot what its client would have before it commits it: a layer, or a step's change.
    fn fill(&mut self, key: &str, name: &str) -> Result<()> {
        let Some(known) = self.known.get(key).cloned() else {
            return Ok(());
        };
        let layers = &self.image.layers;
        let layer = layers.iter().find(|it| name.ends_with(&it.chain_id));
        let dir = self.scratch.dir("mounted");
        let Ok(shape) = Shape::of(&known.mounts) else {
            // That was told when they were answered.
            return Ok(());
        };
        if layer.is_some_and(|layer| layer.blob.is_none()) || !need::root() {
            return Ok(());
        }
        let mounted = mount_all(&known.mounts, &dir)?;
        self.report.mounted += 1;
        let Some(layer) = layer else {
            fs_err::write(dir.join(STEP), key)?;
            return Ok(());
        };
        // On top of nothing, although it may have a parent later, whiteouts are kept as an overlay has them.
        let whiteouts = match shape {
            Shape::Directory { .. } => Whiteouts::Keep,
            _ => Whiteouts::Remove,
        };
        let archive = layer.archive()?.context("the layer has no blob")?;
        unpack(archive, mounted.dir(), whiteouts)?;
        self.report.unpacked += 1;
        Ok(())
    }

    /// Mounts what was answered and looks into it.
    fn look(&mut self, call: &Call, mounts: &[Mount]) -> Result<Vec<String>> {
        let (Call::Prepare { key, .. } | Call::View { key, .. } | Call::Mounts { key }) = call
        else {
            return Ok(Vec::new());
        };
        if Shape::of(mounts).is_err() || !need::root() {
            return Ok(Vec::new());
        }
        let dir = self.scratch.dir("mounted");
        let mounted = match mount_all(mounts, &dir) {
            Ok(mounted) => mounted,
            Err(error) => return Ok(vec![format!("{error:#}")]),
        };
        self.report.mounted += 1;
        let names = fs_err::read_dir(mounted.dir())?.count();
        let top = self.image.layers.last();
        let parent = self
            .known
            .get(key)
            .map_or("", |known| known.parent.as_str());
        let on_top = top.is_some_and(|top| parent.ends_with(&top.chain_id));
        let Some(tree) = self.options.tree.as_ref().filter(|_| on_top) else {
            let empty = on_top && top.is_some_and(|top| top.blob.is_some()) && names == 0;
            return Ok(empty
                .then(|| "nothing is in what was mounted".to_owned())
                .into_iter()
                .collect());
        };
        self.report.trees += 1;
        Ok(differences(tree, mounted.dir()))
    }

    /// Whether a usage is what is on disk, where that can be seen.
    fn usage(&self, key: &str, size: i64, inodes: i64) -> Result<Vec<String>> {
        let known = self.known.get(key);
        let shape = known.and_then(|known| Shape::of(&known.mounts).ok());
        let Some(dir) = shape.as_ref().and_then(Shape::writable) else {
            return Ok(Vec::new());
        };
        let (bytes, count) = on_disk(dir)?;
        // The directory itself may count or not.
        let right = (count - 1..=count).contains(&inodes) && (0..=bytes).contains(&size);
        let words = || {
            format!(
                "expected at most {bytes} bytes in {count} inodes, came {size} bytes in {inodes}"
            )
        };
        Ok((!right).then(words).into_iter().collect())
    }
}

/// An info of a name with labels.
fn named(name: &str, labels: &Labels) -> Info {
    Info {
        name: name.to_owned(),
        kind: Kind::Unknown.into(),
        labels: labels.clone().into_iter().collect(),
        ..Info::default()
    }
}

/// How a mounted tree differs from that of the image. The root is the snapshot's own.
fn differences(tree: &Snapshot, dir: &Path) -> Vec<String> {
    let (mut got, mut expected) = (snapshot_dir(dir), tree.clone());
    got.remove(&b"/"[..]);
    expected.remove(&b"/"[..]);
    let mut lines = diff(&got, &expected);
    let count = lines.len();
    lines.truncate(TREE_DIFFERENCES_MAX);
    if count > lines.len() {
        lines.push(format!("{count} differences in all"));
    }
    lines
}

/// Bytes and inodes of a directory, itself among them.
fn on_disk(dir: &Path) -> Result<(i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    // What stat calls a block, whatever the filesystem's own are.
    const STAT_BLOCK_BYTES: u64 = 512;
    let meta = fs_err::symlink_metadata(dir)?;
    let (mut bytes, mut count) = (i64::try_from(meta.blocks() * STAT_BLOCK_BYTES)?, 1);
    if meta.is_dir() {
        for entry in fs_err::read_dir(dir)? {
            let (more, inodes) = on_disk(&entry?.path())?;
            bytes += more;
            count += inodes;
        }
    }
    Ok((bytes, count))
}
