//! What every check is given: a client, names of its own, and a directory to mount on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use draught_containerd::snapshots::{Info, Kind};
use draught_containerd::tonic::{Code, Status};
use draught_containerd::types::Mount;

use crate::Scratch;
use crate::snapshots::{Labels, Snapshots, mount_all};

/// How long is tried to remove what something else may hold for a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// One check's own.
pub(super) struct Stage {
    pub(super) client: Snapshots,
    prefix: String,
    scratch: Scratch,
    /// Names in the order in which they were made: children come after their parents.
    made: RefCell<Vec<String>>,
}

/// No labels.
pub(super) fn none() -> Labels {
    Labels::new()
}

/// Labels from pairs.
pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

impl Stage {
    pub(super) fn new(client: Snapshots, check: &str) -> Self {
        let scratch = Scratch::new();
        // Another run of the same check may have left its names.
        let own = scratch.path().file_name().unwrap_or_default();
        let prefix = format!("{}-{}", check.replace("::", "-"), own.to_string_lossy());
        Self {
            client,
            prefix,
            scratch,
            made: RefCell::default(),
        }
    }

    /// A name that only this check has.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// What all names of this check begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Notes a snapshot that was made, so that it is removed in the end.
    pub(super) fn made(&self, name: &str) {
        self.made.borrow_mut().push(name.to_owned());
    }

    pub(super) fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        self.prepare_with(key, parent, &none())
    }

    pub(super) fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Vec<Mount>> {
        let mounts = self.client.prepare(key, parent, labels);
        let mounts = mounts.with_context(|| format!("failed to prepare {key}"))?;
        self.made(key);
        Ok(mounts)
    }

    pub(super) fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        let mounts = self.client.view(key, parent, &none());
        let mounts = mounts.with_context(|| format!("failed to view {parent}"))?;
        self.made(key);
        Ok(mounts)
    }

    pub(super) fn commit(&self, name: &str, key: &str) -> Result<()> {
        let done = self.client.commit(name, key, &none(), "");
        done.with_context(|| format!("failed to commit {key}"))?;
        self.made(name);
        Ok(())
    }

    /// A committed snapshot with what `write` writes.
    pub(super) fn layer(
        &self,
        name: &str,
        parent: &str,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<String> {
        let (key, name) = (self.name(&format!("{name}-key")), self.name(name));
        let mounts = self.prepare(&key, parent)?;
        self.within(&mounts, write)?;
        self.commit(&name, &key)?;
        Ok(name)
    }

    /// An empty committed snapshot.
    pub(super) fn empty(&self, name: &str, parent: &str) -> Result<String> {
        self.layer(name, parent, |_| Ok(()))
    }

    /// Mounts and looks, or writes.
    pub(super) fn within<T>(
        &self,
        mounts: &[Mount],
        act: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let mounted = mount_all(mounts, &self.scratch.dir("mounted"))?;
        act(mounted.dir())
    }

    pub(super) fn stat(&self, name: &str) -> Result<Info> {
        let info = self.client.stat(name);
        info.with_context(|| format!("failed to stat {name}"))
    }

    /// Checks name, parent and kind.
    pub(super) fn is(&self, name: &str, parent: &str, kind: Kind) -> Result<Info> {
        let info = self.stat(name)?;
        equal("name", info.name.as_str(), name)?;
        equal("parent", info.parent.as_str(), parent)?;
        equal("kind", info.kind(), kind)?;
        Ok(info)
    }

    /// Names of all snapshots of this check that the filters match.
    pub(super) fn listed(&self, filters: &[String]) -> Result<Vec<String>> {
        let found = self.client.list(filters);
        let found = found.with_context(|| format!("failed to list {filters:?}"))?;
        let mut names: Vec<String> = found.into_iter().map(|info| info.name).collect();
        names.retain(|name| name.starts_with(&self.prefix));
        names.sort();
        Ok(names)
    }

    /// Removes everything, children first.
    pub(super) fn clear(&self) -> Result<()> {
        let made = self.made.borrow();
        let begun = Instant::now();
        for name in made.iter().rev() {
            loop {
                match self.client.remove(name) {
                    Ok(()) => break,
                    // Removed by the check, or committed under another name.
                    Err(status) if status.code() == Code::NotFound => break,
                    Err(status) if begun.elapsed() > PATIENCE => {
                        bail!("failed to remove {name} in the end: {status}")
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        }
        let left = self.listed(&[])?;
        ensure!(left.is_empty(), "still listed after removal: {left:?}");
        Ok(())
    }
}

/// Fails unless both are the same.
pub(super) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<()> {
    ensure!(got == expected, "{what} is {got:?}, should be {expected:?}");
    Ok(())
}

/// Fails unless it was refused with this code.
pub(super) fn refused<T: std::fmt::Debug>(
    what: &str,
    answer: Result<T, Status>,
    code: Code,
) -> Result<()> {
    match answer {
        Ok(answer) => bail!("{what} is possible ({answer:?}), should be {code:?}"),
        Err(status) if status.code() == code => Ok(()),
        Err(status) => bail!(
            "{what} is {:?} ({}), should be {code:?}",
            status.code(),
            status.message()
        ),
    }
}

/// Labels that have a value.
pub(super) fn labels_of(info: &Info) -> BTreeMap<String, String> {
    info.labels.clone().into_iter().collect()
}
