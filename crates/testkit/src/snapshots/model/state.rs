//! What the model knows, and its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use draught_containerd::prost_types::Timestamp;
use draught_containerd::snapshots::{Info, Kind, UsageResponse};
use draught_containerd::tonic::Status;
use draught_containerd::types::Mount;

use super::filter;
use crate::snapshots::{Whiteouts, unpack};

/// One way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    AddsLabels,
    CommitsOverNames,
    CommitsViews,
    CountsNothing,
    ForgetsCommitLabels,
    ForgetsLabels,
    ForgetsParents,
    ForgetsRemote,
    GivesKeysTwice,
    IgnoresFilters,
    IgnoresMasks,
    KeepsTimes,
    ListsTooFew,
    LosesWrites,
    MountsCommitted,
    MovesWrites,
    NeverLazy,
    PreparesOnActive,
    RemovesParents,
    SaysActiveOfViews,
    UpdatesAnything,
    WritesViews,
    WrongCodeForUnknown,
}

#[derive(Debug, Clone)]
struct Snapshot {
    info: Info,
    id: usize,
    usage: UsageResponse,
}

#[derive(Debug)]
pub(super) struct State {
    root: PathBuf,
    next: usize,
    clock: i64,
    all: BTreeMap<String, Snapshot>,
    /// Layers that are lazy, by the digest that labels name.
    lazy: BTreeMap<String, Vec<u8>>,
    /// Whether lazy snapshots are named by it, not by their chain.
    own_names: bool,
    fault: Option<Fault>,
}

const REF: &str = "containerd.io/snapshot.ref";
const DIGESTS: [&str; 2] = [
    "containerd.io/snapshot/remote/stargz.digest",
    "containerd.io/snapshot/cri.layer-digest",
];

impl State {
    pub(super) fn new(
        root: &Path,
        lazy: BTreeMap<String, Vec<u8>>,
        own_names: bool,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            root: root.to_owned(),
            next: 0,
            clock: 1_700_000_000,
            all: BTreeMap::new(),
            lazy,
            own_names,
            fault,
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn now(&mut self) -> Option<Timestamp> {
        self.clock += 1;
        Some(Timestamp {
            seconds: self.clock,
            nanos: 0,
        })
    }

    fn known(&self, name: &str) -> Result<&Snapshot, Status> {
        let unknown = || match self.is(Fault::WrongCodeForUnknown) {
            true => Status::unknown("what?"),
            false => Status::not_found(format!("snapshot {name}: not found")),
        };
        self.all.get(name).ok_or_else(unknown)
    }

    fn dir(&self, id: usize, part: &str) -> String {
        self.root.join(format!("{id}/{part}")).display().to_string()
    }

    pub(super) fn make(
        &mut self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, Status> {
        if self.all.contains_key(key) {
            if self.is(Fault::GivesKeysTwice) {
                return self.mounts(key);
            }
            return Err(Status::already_exists(format!("{key}: already exists")));
        }
        if !parent.is_empty() {
            let known = self.known(parent)?;
            if known.info.kind() != Kind::Committed && !self.is(Fault::PreparesOnActive) {
                return Err(Status::invalid_argument("the parent is not committed"));
            }
        }
        let labels: BTreeMap<_, _> = labels.into_iter().filter(|it| !it.1.is_empty()).collect();
        let id = self.next;
        self.next += 1;
        for part in ["fs", "work"] {
            fs_err::create_dir_all(self.dir(id, part)).unwrap();
        }
        let layer = self.lazy_layer(&labels);
        if let Some(layer) = layer.filter(|_| kind == Kind::Active) {
            let dir = PathBuf::from(self.dir(id, "fs"));
            unpack(&layer[..], &dir, Whiteouts::Keep).unwrap();
            return Err(self.commit_lazy(id, parent, labels));
        }
        let now = self.now();
        let info = Info {
            name: key.to_owned(),
            parent: parent.to_owned(),
            kind: kind.into(),
            created_at: now,
            updated_at: now,
            labels: labels.into_iter().collect(),
        };
        self.keep(key, info, id);
        self.mounts(key)
    }

    fn keep(&mut self, name: &str, mut info: Info, id: usize) {
        if self.is(Fault::ForgetsLabels) {
            info.labels.clear();
        }
        if self.is(Fault::AddsLabels) {
            info.labels.insert("surprise".to_owned(), "1".to_owned());
        }
        let usage = UsageResponse::default();
        self.all
            .insert(name.to_owned(), Snapshot { info, id, usage });
    }

    fn lazy_layer(&self, labels: &BTreeMap<String, String>) -> Option<Vec<u8>> {
        labels.get(REF)?;
        let digest = DIGESTS.iter().find_map(|name| labels.get(*name))?;
        let layer = self.lazy.get(digest)?;
        (!self.is(Fault::NeverLazy)).then(|| layer.clone())
    }

    fn commit_lazy(
        &mut self,
        id: usize,
        parent: &str,
        mut labels: BTreeMap<String, String>,
    ) -> Status {
        let chain = labels[REF].clone();
        let name = if self.own_names {
            format!("of-the-model/{id}")
        } else {
            chain
        };
        if !self.is(Fault::ForgetsRemote) {
            let key = "containerd.io/snapshot/remote".to_owned();
            labels.insert(key, "true".to_owned());
        }
        let now = self.now();
        let info = Info {
            name: name.clone(),
            parent: parent.to_owned(),
            kind: Kind::Committed.into(),
            created_at: now,
            updated_at: now,
            labels: labels.into_iter().collect(),
        };
        self.keep(&name, info, id);
        Status::already_exists("it is lazy: already exists")
    }

    pub(super) fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let snapshot = self.known(key)?;
        let kind = snapshot.info.kind();
        if kind == Kind::Committed && !self.is(Fault::MountsCommitted) {
            return Err(Status::failed_precondition("it is committed"));
        }
        let mut lowers = Vec::new();
        let mut parent = snapshot.info.parent.as_str();
        while !parent.is_empty() {
            let below = self.known(parent)?;
            lowers.push(self.dir(below.id, "fs"));
            parent = &below.info.parent;
        }
        let write = kind == Kind::Active || self.is(Fault::WritesViews);
        let upper = self.dir(snapshot.id, "fs");
        let bind = |dir: String| {
            let access = if write { "rw" } else { "ro" };
            ("bind", dir, vec![access.to_owned(), "rbind".to_owned()])
        };
        let (kind, source, options) = if lowers.is_empty() {
            bind(upper)
        } else if write {
            let upper = match self.is(Fault::MovesWrites) {
                // All write to one place.
                true => self.dir(0, "fs"),
                false => upper,
            };
            let options = vec![
                format!("workdir={}", self.dir(snapshot.id, "work")),
                format!("upperdir={upper}"),
                format!("lowerdir={}", lowers.join(":")),
            ];
            ("overlay", "overlay".to_owned(), options)
        } else if lowers.len() == 1 {
            bind(lowers.remove(0))
        } else {
            let options = vec![format!("lowerdir={}", lowers.join(":"))];
            ("overlay", "overlay".to_owned(), options)
        };
        Ok(vec![Mount {
            r#type: kind.to_owned(),
            source,
            target: String::new(),
            options,
        }])
    }

    pub(super) fn commit(
        &mut self,
        name: &str,
        key: &str,
        labels: BTreeMap<String, String>,
        parent: &str,
    ) -> Result<(), Status> {
        if self.all.contains_key(name) && !self.is(Fault::CommitsOverNames) {
            return Err(Status::already_exists(format!("{name}: already exists")));
        }
        let mut snapshot = self.known(key)?.clone();
        let kind = snapshot.info.kind();
        let may = kind == Kind::Active || kind == Kind::View && self.is(Fault::CommitsViews);
        if !may {
            return Err(Status::failed_precondition("it is not active"));
        }
        if !parent.is_empty() && snapshot.info.parent.is_empty() {
            if self.known(parent)?.info.kind() != Kind::Committed {
                return Err(Status::failed_precondition("the parent is not committed"));
            }
            parent.clone_into(&mut snapshot.info.parent);
        }
        if !parent.is_empty() && snapshot.info.parent != parent {
            return Err(Status::invalid_argument("it has another parent"));
        }
        if self.is(Fault::ForgetsParents) {
            snapshot.info.parent.clear();
        }
        if self.is(Fault::LosesWrites) {
            let dir = self.dir(snapshot.id, "fs");
            fs_err::remove_dir_all(&dir).unwrap();
            fs_err::create_dir(&dir).unwrap();
        }
        self.all.remove(key);
        let now = self.now();
        let labels = labels.into_iter().filter(|it| !it.1.is_empty());
        let usage = self.on_disk(snapshot.id);
        let mut info = Info {
            name: name.to_owned(),
            kind: Kind::Committed.into(),
            created_at: now,
            updated_at: now,
            labels: labels.collect(),
            ..snapshot.info
        };
        if self.is(Fault::ForgetsCommitLabels) {
            info.labels.clear();
        }
        self.keep(name, info, snapshot.id);
        self.all.get_mut(name).unwrap().usage = usage;
        Ok(())
    }

    fn on_disk(&self, id: usize) -> UsageResponse {
        fn add(path: &Path, seen: &mut BTreeSet<u64>, usage: &mut UsageResponse) {
            let meta = fs_err::symlink_metadata(path).unwrap();
            if !seen.insert(meta.ino()) {
                return;
            }
            usage.size += i64::try_from(meta.blocks() * 512).unwrap();
            usage.inodes += 1;
            if meta.is_dir() {
                for entry in fs_err::read_dir(path).unwrap() {
                    add(&entry.unwrap().path(), seen, usage);
                }
            }
        }
        let mut usage = UsageResponse::default();
        if !self.is(Fault::CountsNothing) {
            let dir = self.dir(id, "fs");
            add(Path::new(&dir), &mut BTreeSet::new(), &mut usage);
        }
        usage
    }

    pub(super) fn usage(&self, key: &str) -> Result<UsageResponse, Status> {
        let snapshot = self.known(key)?;
        Ok(match snapshot.info.kind() {
            Kind::Active => self.on_disk(snapshot.id),
            _ => snapshot.usage,
        })
    }

    pub(super) fn remove(&mut self, key: &str) -> Result<(), Status> {
        let id = self.known(key)?.id;
        let has_children = self.all.values().any(|it| it.info.parent == key);
        if has_children && !self.is(Fault::RemovesParents) {
            return Err(Status::failed_precondition("it has children"));
        }
        self.all.remove(key);
        fs_err::remove_dir_all(self.root.join(id.to_string())).unwrap();
        Ok(())
    }

    fn shown(&self, snapshot: &Snapshot) -> Info {
        let mut info = snapshot.info.clone();
        if self.is(Fault::SaysActiveOfViews) && info.kind() == Kind::View {
            info.kind = Kind::Active.into();
        }
        info
    }

    pub(super) fn stat(&self, key: &str) -> Result<Info, Status> {
        Ok(self.shown(self.known(key)?))
    }

    pub(super) fn list(&self, filters: &[String]) -> Result<Vec<Info>, Status> {
        let filters = match self.is(Fault::IgnoresFilters) {
            true => &[],
            false => filters,
        };
        if filter::any(filters, &Info::default()).is_none() {
            return Err(Status::invalid_argument("that is no filter"));
        }
        let mut found = Vec::new();
        for snapshot in self.all.values() {
            let info = self.shown(snapshot);
            if filter::any(filters, &info) == Some(true) {
                found.push(info);
            }
        }
        if self.is(Fault::ListsTooFew) {
            found.pop();
        }
        Ok(found)
    }

    pub(super) fn update(&mut self, info: Info, mask: &[String]) -> Result<Info, Status> {
        let now = self.now();
        let keeps_times = self.is(Fault::KeepsTimes);
        let anything = self.is(Fault::UpdatesAnything);
        let mask = match self.is(Fault::IgnoresMasks) {
            true => &[],
            false => mask,
        };
        self.known(&info.name)?;
        let known = &mut self.all.get_mut(&info.name).unwrap().info;
        if mask.is_empty() {
            known.labels.clone_from(&info.labels);
        }
        if anything {
            known.parent.clone_from(&info.parent);
        }
        for path in mask {
            if path == "labels" {
                known.labels.clone_from(&info.labels);
            } else if let Some(key) = path.strip_prefix("labels.") {
                match info.labels.get(key) {
                    Some(value) => known.labels.insert(key.to_owned(), value.clone()),
                    None => known.labels.remove(key),
                };
            } else if !anything {
                return Err(Status::invalid_argument(format!("{path} can't be changed")));
            }
        }
        known.labels.retain(|_, value| !value.is_empty());
        if !keeps_times {
            known.updated_at = now;
        }
        let name = info.name;
        self.stat(&name)
    }
}
