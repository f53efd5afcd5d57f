//! All snapshots: in memory, to be looked at, and in a database, to outlive this process and the machine's power.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use draught_digest::Digest;

use crate::error::{Error, Result};
use crate::record::{Kind, Record};

/// The label with the name that a client wants for what it prepares.
pub(crate) const REF_LABEL: &str = "containerd.io/snapshot.ref";

/// All snapshots, as they are looked at.
#[derive(Debug, Default)]
pub(crate) struct Records {
    all: BTreeMap<String, Record>,
    /// Names of the snapshots right above each; those of whom nobody is above are not listed.
    children: HashMap<String, BTreeSet<String>>,
    /// Names of committed snapshots by the name that a client wanted for them.
    by_ref: HashMap<String, BTreeSet<String>>,
    doomed: HashSet<String>,
    /// How many snapshots want what the store keeps under a digest.
    wants: HashMap<Digest, usize>,
}

/// A change that is made as a whole, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// A name that goes.
    pub(crate) remove: Option<String>,
    /// A snapshot that comes, or is from now on like this.
    pub(crate) put: Option<(String, Record)>,
    /// Digests under which the store keeps what no snapshot wants any more.
    pub(crate) doom: Vec<String>,
    /// Those that it does not keep any more, or that are wanted again.
    pub(crate) spare: Vec<String>,
}

impl Change {
    /// Whether it changes nothing.
    pub(crate) fn is_none(&self) -> bool {
        let Self {
            remove,
            put,
            doom,
            spare,
        } = self;
        remove.is_none() && put.is_none() && doom.is_empty() && spare.is_empty()
    }
}

impl Records {
    pub(crate) fn get(&self, name: &str) -> Option<&Record> {
        self.all.get(name)
    }

    /// The snapshot of that name, or the error that there is none.
    pub(crate) fn need(&self, name: &str) -> Result<&Record> {
        self.get(name).ok_or_else(|| Error::NoSnapshot {
            name: name.to_owned(),
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.all.iter()
    }

    pub(crate) fn has_children(&self, name: &str) -> bool {
        self.children.contains_key(name)
    }

    /// The names of committed snapshots that clients wanted by this name.
    pub(crate) fn wanted_as(&self, name: &str) -> impl Iterator<Item = &String> {
        self.by_ref.get(name).into_iter().flatten()
    }

    /// What the store keeps and no snapshot wants.
    pub(crate) fn doomed(&self) -> Vec<String> {
        self.doomed.iter().cloned().collect()
    }

    /// Whether a snapshot wants what the store keeps under this digest.
    pub(crate) fn wants_image(&self, digest: &Digest) -> bool {
        self.wants.contains_key(digest)
    }

    /// Whether none would if one snapshot were not there.
    pub(crate) fn is_last_to_want(&self, digest: &Digest) -> bool {
        self.wants.get(digest).is_none_or(|count| *count <= 1)
    }

    /// A snapshot and all below it, the lowest first.
    pub(crate) fn chain(&self, name: &str) -> Result<Vec<(&str, &Record)>> {
        let mut chain = Vec::new();
        let mut at = name;
        while !at.is_empty() {
            let Some((name, record)) = self.all.get_key_value(at) else {
                return Err(Error::NoSnapshot {
                    name: at.to_owned(),
                });
            };
            chain.push((name.as_str(), record));
            at = &record.parent;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Makes a change here.
    pub(crate) fn apply(&mut self, change: Change) {
        if let Some(name) = &change.remove {
            self.forget(name);
        }
        if let Some((name, record)) = change.put {
            self.forget(&name);
            self.note(name, record);
        }
        self.doomed.extend(change.doom);
        for digest in &change.spare {
            self.doomed.remove(digest);
        }
    }

    pub(crate) fn note(&mut self, name: String, record: Record) {
        if !record.parent.is_empty() {
            let above = self.children.entry(record.parent.clone()).or_default();
            above.insert(name.clone());
        }
        if record.kind == Kind::Committed
            && let Some(wanted) = record.labels.get(REF_LABEL)
        {
            let same = self.by_ref.entry(wanted.clone()).or_default();
            same.insert(name.clone());
        }
        if let Some(lazy) = &record.lazy {
            *self.wants.entry(lazy.image).or_default() += 1;
        }
        self.all.insert(name, record);
    }

    fn forget(&mut self, name: &str) {
        let Some(record) = self.all.remove(name) else {
            return;
        };
        if let Some(lazy) = &record.lazy
            && let Some(count) = self.wants.get_mut(&lazy.image)
        {
            *count -= 1;
            if *count == 0 {
                self.wants.remove(&lazy.image);
            }
        }
        let wanted = record.labels.get(REF_LABEL);
        for (map, key) in [
            (&mut self.children, Some(&record.parent)),
            (&mut self.by_ref, wanted),
        ] {
            let Some(key) = key else { continue };
            if let Some(names) = map.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    map.remove(key);
                }
            }
        }
    }
}
