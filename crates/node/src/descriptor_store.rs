//! What the service manager keeps for the keeper: systemd's store of descriptors.
//!
//! Started by systemd, the keeper gives it a copy of all that must outlive a crash. If keeper and worker are both
//! killed, even with their guard, the next keeper is started with these: the group was never closed, so readers
//! have waited, and are served. The lock is not among them: it must end with keeper and worker, because that is
//! how the next keeper knows that nobody serves.
//!
//! Names in the store are short, as all of them must fit into one environment variable. A file says which device
//! each is of. Each generation of holdings has a tag of its own, so that what is left of an earlier one, which was
//! never handed on, is not taken for what is held now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use draught_digest::{Algorithm, Digest};
use draught_sys::fanotify::Group;
use draught_sys::journal::Journal;
use draught_sys::notify::{Notifier, take_descriptors};

use crate::client::{Client, ClientError};
use crate::guard;
use crate::handover::Key;
use crate::keeper::Holdings;
use crate::layout::Layout;
use crate::state;

/// Devices that are kept: the names of so many take 108 KiB, and a variable holds 128.
const DEVICES_MAX: usize = 6000;
/// Lines that are added to the file until it is written anew, without those of devices that are gone.
const ADDED_MAX: usize = 2 * DEVICES_MAX;
/// Bytes of a key in a name: no two devices of a node have the same.
const NAME_KEY_BYTES: usize = 6;

/// The store, and what is in it.
#[derive(Debug)]
pub(crate) struct DescriptorStore {
    notifier: Notifier,
    /// Which device each name is of.
    file: PathBuf,
    tag: u16,
    devices: BTreeMap<Key, String>,
    /// Lines that were added to the file since it was written whole.
    added: usize,
    /// The group of an earlier generation. It is held to the end: readers of its mounts, if there are any that no
    /// guard sends away, wait rather than read zeros.
    _stale: Option<OwnedFd>,
}

/// What came back from the store.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) group: Group,
    pub(crate) journal: Journal,
    pub(crate) listener: OwnedFd,
    pub(crate) guard: Option<OwnedFd>,
    pub(crate) devices: BTreeMap<Key, OwnedFd>,
}

/// What comes of what a manager kept.
#[derive(Debug)]
pub(crate) enum Back {
    /// It kept nothing.
    Nothing,
    /// What it kept can't be gone on with: mounts that it was for are to be taken away, and their devices not to be
    /// used again.
    Lingers,
    /// Everything is there.
    Kept(Box<Kept>),
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    tag: u16,
    keys: BTreeMap<String, Key>,
}

impl Names {
    /// None: there is none, or it can't be understood.
    fn read(file: &PathBuf) -> Option<Self> {
        let text = fs_err::read_to_string(file).ok()?;
        let mut lines = text.lines();
        let mut names = Self {
            tag: u16::from_str_radix(lines.next()?.strip_prefix("tag ")?, 16).ok()?,
            keys: BTreeMap::new(),
        };
        for line in lines {
            // The last one may be torn: that device was not given to the store yet.
            let Some((name, key)) = line.split_once(' ') else {
                break;
            };
            let Ok(key) = key.parse::<Digest>() else {
                break;
            };
            names.keys.insert(name.to_owned(), *key.as_bytes());
        }
        Some(names)
    }
}

fn line(name: &str, key: &Key) -> String {
    format!("{name} {}\n", Digest::new(Algorithm::Sha256, *key))
}

impl DescriptorStore {
    /// The store of the manager that started this process, with all that this generation's keepers gave it. None:
    /// there is no manager.
    pub(crate) fn of_generation(layout: &Layout) -> Option<Self> {
        let notifier = Notifier::from_env()?;
        let file = layout.descriptors();
        let names = Names::read(&file).unwrap_or_default();
        let devices = names.keys.into_iter().map(|(name, key)| (key, name));
        Some(Self {
            notifier,
            file,
            tag: names.tag,
            devices: devices.collect(),
            added: 0,
            _stale: None,
        })
    }

    /// What the manager kept while nobody was there. If it is of no use, it is forgotten, and another generation
    /// begins.
    pub(crate) fn take_back(&mut self) -> Back {
        let received = take_descriptors();
        if received.is_empty() {
            self.begin();
            return Back::Nothing;
        }
        match self.sort(received) {
            Ok(kept) => {
                tracing::warn!(
                    devices = kept.devices.len(),
                    "keeper and worker were gone: going on with what the service manager kept"
                );
                Back::Kept(Box::new(kept))
            }
            Err(received) => {
                for (name, fd) in &received {
                    if name.ends_with("-guard") {
                        guard::abandon(fd);
                    }
                    self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
                }
                let mut received = received.into_iter();
                let group = received.find(|(name, _)| name.ends_with("-group"));
                self._stale = group.map(|(_, fd)| fd);
                self.begin();
                Back::Lingers
            }
        }
    }

    /// Begins another generation: nothing is in the store.
    fn begin(&mut self) {
        self.tag = self.tag.wrapping_add(1);
        self.devices.clear();
        if let Err(error) = self.write() {
            tracing::error!(%error, "what the service manager keeps could not be used again");
        }
    }

    /// Writes the whole file anew.
    fn write(&mut self) -> io::Result<()> {
        self.added = 0;
        let mut text = format!("tag {:04x}\n", self.tag);
        for (key, name) in &self.devices {
            text.push_str(&line(name, key));
        }
        state::replace(&self.file, text.as_bytes())
    }

    fn fixed(&self, what: &str) -> String {
        format!("{:04x}-{what}", self.tag)
    }

    /// Sorts what was received by what it is, or gives it back.
    fn sort(&self, received: Vec<(String, OwnedFd)>) -> Result<Kept, Vec<(String, OwnedFd)>> {
        let find = |what: &str| {
            let name = self.fixed(what);
            let mut all = received.iter();
            all.find(|(other, _)| *other == name)
                .map(|(_, fd)| fd.try_clone())
        };
        let found = |what: &str| find(what).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        // The next keeper starts a guard if there is none.
        let guard = find("guard").transpose().unwrap_or(None);
        let whole = || {
            let group = Group::from_fd(found("group")?);
            Ok::<_, io::Error>((group, Journal::map(found("journal")?)?, found("listener")?))
        };
        let (group, journal, listener) = match whole() {
            Ok(whole) => whole,
            Err(error) => {
                tracing::error!(%error, "what the service manager kept is not whole");
                return Err(received);
            }
        };
        let names = self.devices.iter().map(|(key, name)| (name.as_str(), *key));
        let keys: BTreeMap<&str, Key> = names.collect();
        let mut devices = BTreeMap::new();
        for (name, fd) in received {
            if let Some(key) = keys.get(name.as_str()) {
                // The first: it was open before the mark.
                devices.entry(*key).or_insert(fd);
            }
        }
        Ok(Kept {
            group,
            journal,
            listener,
            guard,
            devices,
        })
    }

    /// Gives the manager all that is held. What it has already it does not take twice.
    pub(crate) fn put_all(&mut self, holdings: &Holdings) {
        self.put(&self.fixed("group"), holdings.group.as_fd());
        self.put(&self.fixed("journal"), holdings.journal.as_fd());
        self.put(&self.fixed("listener"), holdings.listener.as_fd());
        if let Some(guard) = &holdings.guard {
            self.put_guard(guard.as_fd());
        }
        self.devices
            .retain(|key, _| holdings.devices.contains_key(key));
        for key in holdings.devices.keys() {
            self.name(key);
        }
        if let Err(error) = self.write() {
            tracing::error!(%error, "what the service manager keeps could not be used again");
        }
        for (key, fd) in &holdings.devices {
            let name = self.devices.get(key);
            // One who does not read would keep us from the worker, for a second each.
            if !name.is_none_or(|name| self.put(name, fd.as_fd())) {
                break;
            }
        }
    }

    /// Gives it the line to another guard instead of the one before.
    pub(crate) fn put_guard(&self, line: BorrowedFd<'_>) {
        let name = self.fixed("guard");
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
        self.put(&name, line);
    }

    /// Gives it a device.
    pub(crate) fn put_device(&mut self, key: &Key, fd: BorrowedFd<'_>) {
        if self.devices.contains_key(key) {
            return;
        }
        let Some(name) = self.name(key) else {
            return;
        };
        // Before it is in the store: a name there that the file does not have is of no use.
        match self.note(&name, key) {
            Ok(()) => drop(self.put(&name, fd)),
            Err(error) => tracing::error!(%error, "a device would be lost with keeper and worker"),
        }
    }

    /// Notes in the file which device a name is of.
    fn note(&mut self, name: &str, key: &Key) -> io::Result<()> {
        if self.added >= ADDED_MAX {
            return self.write();
        }
        self.added += 1;
        let mut file = fs_err::OpenOptions::new().append(true).open(&self.file)?;
        io::Write::write_all(&mut file, line(name, key).as_bytes())
    }

    /// The name of a device, if there is room for one more.
    fn name(&mut self, key: &Key) -> Option<String> {
        if let Some(name) = self.devices.get(key) {
            return Some(name.clone());
        }
        if self.devices.len() >= DEVICES_MAX {
            tracing::error!(
                DEVICES_MAX,
                "no more devices are kept by the service manager: this one would be lost with keeper and worker"
            );
            return None;
        }
        let mut name = format!("{:04x}-", self.tag);
        for byte in key.iter().take(NAME_KEY_BYTES) {
            // Writing to a string does not fail.
            let _written = write!(name, "{byte:02x}");
        }
        self.devices.insert(*key, name.clone());
        Some(name)
    }

    /// Has it let go of a device.
    pub(crate) fn remove_device(&mut self, key: &Key) {
        if let Some(name) = self.devices.remove(key) {
            self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
        }
    }

    /// Has it let go of everything: nothing is mounted any more.
    pub(crate) fn clear(&mut self) {
        self.tell("STOPPING=1", &[]);
        let fixed = ["group", "journal", "listener", "guard"].map(|what| self.fixed(what));
        let devices = std::mem::take(&mut self.devices);
        for name in fixed.into_iter().chain(devices.into_values()) {
            self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
        }
        if let Err(error) = fs_err::remove_file(&self.file) {
            tracing::debug!(%error, "the names of what was kept are left");
        }
        self.flush();
    }

    /// Tells it that this process is the keeper and serves.
    pub(crate) fn ready(&self) {
        self.tell(&ready(std::process::id()), &[]);
    }

    /// Tells it that this process ends, and the worker goes on.
    pub(crate) fn leaving(&self) {
        self.tell(
            "STOPPING=1\nSTATUS=containers use the mounts: the worker goes on",
            &[],
        );
        self.flush();
    }

    /// Whether that worked.
    fn put(&self, name: &str, fd: BorrowedFd<'_>) -> bool {
        // It is not to be looked at by the manager: to be closed is ours to say.
        self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[fd])
    }

    /// Whether that worked; it is said if not.
    fn tell(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> bool {
        let told = self.notifier.send(message, descriptors);
        if let Err(error) = &told {
            tracing::error!(%error, message, "the service manager could not be told");
        }
        told.is_ok()
    }

    fn flush(&self) {
        if let Err(error) = self.notifier.flush() {
            tracing::warn!(%error, "the service manager does not read what it is told");
        }
    }
}

fn ready(keeper: u32) -> String {
    format!("READY=1\nMAINPID={keeper}\nSTATUS=serving")
}

/// A daemon runs already, which this service's earlier process left behind: it goes on with this program, and as
/// this service.
pub(crate) fn hand_to_running(layout: &Layout, notifier: &Notifier) -> Result<(), ClientError> {
    // Of the same generation, or of one that is over: the daemon that runs gives the manager what it holds.
    let _kept = take_descriptors();
    // By process: what lies at the path may be another version by now.
    let executable = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let status = Client::new(layout.clone()).upgrade(&executable)?;
    tracing::info!(
        keeper = status.keeper_pid,
        "a daemon runs already: it goes on as this service"
    );
    let told = notifier.send(&ready(status.keeper_pid), &[]);
    if let Err(error) = told.and_then(|()| notifier.flush()) {
        tracing::error!(%error, "the service manager could not be told");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("descriptors");
        assert_eq!(Names::read(&file), None);
        let keys = [[1; 32], [2; 32]];
        let text = format!("tag 00ff\n{}{}", line("a", &keys[0]), line("b", &keys[1]));
        fs_err::write(&file, &text).unwrap();
        let names = Names::read(&file).unwrap();
        assert_eq!(names.tag, 0xff);
        assert_eq!(names.keys.len(), 2);
        fs_err::write(&file, &text[..text.len() - 10]).unwrap();
        let names = Names::read(&file).unwrap();
        assert_eq!(names.keys, [("a".to_owned(), keys[0])].into());
    }
}
