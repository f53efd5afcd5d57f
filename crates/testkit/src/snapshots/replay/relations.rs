//! What stands for what in the conversation: names, directories and times of the recording, and those here.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use draught_containerd::prost_types::Timestamp;
use draught_containerd::snapshots::Info;

/// One thing stands for one other, both ways.
#[derive(Debug)]
struct Pairs<T> {
    here: BTreeMap<T, T>,
    recorded: BTreeMap<T, T>,
}

impl<T: Ord + Clone> Pairs<T> {
    fn new() -> Self {
        Self {
            here: BTreeMap::new(),
            recorded: BTreeMap::new(),
        }
    }

    /// Whether the two stand for each other, which they do from now on if neither stood for anything.
    fn pair(&mut self, recorded: &T, here: &T) -> bool {
        match (self.here.get(recorded), self.recorded.get(here)) {
            (None, None) => {
                self.here.insert(recorded.clone(), here.clone());
                self.recorded.insert(here.clone(), recorded.clone());
                true
            }
            (known, back) => known == Some(here) && back == Some(recorded),
        }
    }

    fn forget(&mut self, recorded: &T) {
        if let Some(here) = self.here.remove(recorded) {
            self.recorded.remove(&here);
        }
    }
}

/// The state of a conversation.
#[derive(Debug)]
pub(super) struct Relations {
    names: Pairs<String>,
    writable: Pairs<PathBuf>,
    /// A name that was listed here; whose it is shows when the trace speaks of a name that it has not
    /// spoken of before.
    listed: Option<String>,
    times: BTreeMap<String, Times>,
}

#[derive(Debug)]
struct Times {
    recorded: Timestamp,
    here: Timestamp,
    created: Timestamp,
}

impl Relations {
    pub(super) fn new() -> Self {
        Self {
            names: Pairs::new(),
            writable: Pairs::new(),
            listed: None,
            times: BTreeMap::new(),
        }
    }

    /// The name here of what has this one in the trace; itself if it is nobody's.
    pub(super) fn here(&mut self, recorded: &str) -> String {
        if recorded.is_empty() {
            return String::new();
        }
        if let Some(here) = self.names.here.get(recorded) {
            return here.clone();
        }
        if let Some(listed) = self.listed.take() {
            self.names.pair(&recorded.to_owned(), &listed);
            return listed;
        }
        recorded.to_owned()
    }

    /// A client gave this name, here as there.
    pub(super) fn name(&mut self, name: &str) -> bool {
        self.names.pair(&name.to_owned(), &name.to_owned())
    }

    /// There is no snapshot of that name any more.
    pub(super) fn forget(&mut self, recorded: &str) {
        self.names.forget(&recorded.to_owned());
        self.times.remove(recorded);
    }

    /// A snapshot was listed whose name in the trace is not known yet.
    pub(super) fn list(&mut self, here: &str) {
        if !self.names.recorded.contains_key(here) {
            self.listed = Some(here.to_owned());
        }
    }

    /// Names here of all snapshots that the conversation has made.
    pub(super) fn all_here(&self) -> impl Iterator<Item = &str> {
        self.names.here.values().map(String::as_str)
    }

    /// Whether what was written to one directory there is written to one here.
    pub(super) fn writable(&mut self, recorded: &Path, here: &Path) -> bool {
        self.writable.pair(&recorded.to_owned(), &here.to_owned())
    }

    /// What the times of a snapshot say that they did not say there.
    pub(super) fn times(&mut self, recorded: &Info, here: &Info) -> Option<String> {
        let (Some(created), Some(updated)) = (here.created_at, here.updated_at) else {
            return Some("a time is missing".to_owned());
        };
        let there = recorded.updated_at?;
        let known = self.times.insert(
            recorded.name.clone(),
            Times {
                recorded: there,
                here: updated,
                created,
            },
        );
        if order(&created, &updated) == Ordering::Greater {
            return Some(format!(
                "it was updated ({updated}) before it was made ({created})"
            ));
        }
        let known = known?;
        if known.created != created {
            return Some(format!(
                "it was made at {}, now at {created}",
                known.created
            ));
        }
        let moved = |from: &Timestamp, to: &Timestamp| order(from, to);
        let (then, now) = (moved(&known.recorded, &there), moved(&known.here, &updated));
        (then != now).then(|| {
            let words = match then {
                Ordering::Less => "later than before",
                Ordering::Equal => "as before",
                Ordering::Greater => "earlier than before",
            };
            format!(
                "updated_at should be {words}: was {}, is {updated}",
                known.here
            )
        })
    }
}

fn order(one: &Timestamp, other: &Timestamp) -> Ordering {
    (one.seconds, one.nanos).cmp(&(other.seconds, other.nanos))
}
