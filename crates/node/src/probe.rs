//! What this machine can do, found out by trying it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_erofs::{Options, Placement};
use draught_mount::fuse::{
    Attributes, DirEntry, Files, FuseMount, FuseOptions, ROOT, ReadReply, Session, Start,
    fuse_ability,
};
use draught_mount::{Ability, Detached, pre_content_events};
use draught_tree::Tree;
use parking_lot::Mutex;
use serde::Serialize;

use crate::error::MountError;
use crate::transport::Transport;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// What was tried.
    pub what: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// Why, or why not and what to do about it.
    pub why: String,
}

/// A transport, and whether mounts can use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Which.
    pub transport: Transport,
    /// Whether it works here.
    pub works: bool,
    /// Why it is the one that is used, or is not.
    pub why: String,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The kernel's release.
    pub kernel: String,
    /// The directory whose filesystem was tried.
    pub directory: PathBuf,
    /// Everything that was tried.
    pub trials: Vec<Trial>,
    /// All transports, the best first.
    pub transports: Vec<Choice>,
    /// The transport that mounts would use; none if images can't be mounted here.
    pub transport: Option<Transport>,
}

const EROFS: &str = "EROFS mounted from a file";
const EVENTS: &str = "pre-content events (fanotify)";
const FUSE: &str = "FUSE";
const EROFS_OVER_FUSE: &str = "EROFS mounted from a file in FUSE";

/// What a transport needs.
fn needs(transport: Transport) -> &'static [&'static str] {
    match transport {
        Transport::Fanotify => &[EROFS, EVENTS],
        Transport::Fileio => &[EROFS_OVER_FUSE],
        Transport::Fuse => &[FUSE],
    }
}

fn try_out(what: &'static str, directory: &Path) -> Trial {
    let ability = match what {
        EROFS => file_backed(directory),
        EVENTS => pre_content_events(directory),
        EROFS_OVER_FUSE => over_fuse(directory),
        _ => fuse_ability(directory),
    };
    Trial {
        what,
        works: ability.usable,
        why: ability.why,
    }
}

/// The nearest directory that there is: the state directory need not exist yet.
fn existing(root: &Path) -> &Path {
    let mut above = root.ancestors();
    above.find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

/// Tries what mounting needs, on the filesystem of the state directory (which need not exist yet).
#[must_use]
pub fn probe(root: &Path) -> Probe {
    let directory = existing(root);
    let trials = [EROFS, EVENTS, EROFS_OVER_FUSE, FUSE].map(|what| try_out(what, directory));
    let mut transports: Vec<Choice> = Vec::new();
    for transport in Transport::ALL {
        let failed = needs(transport).iter().find(|need| {
            let mut tried = trials.iter();
            tried.any(|trial| trial.what == **need && !trial.works)
        });
        let better = transports.iter().find(|choice| choice.works);
        let why = match (failed, better) {
            (Some(need), _) => format!("needs {need}"),
            (None, None) => "the best that works here".to_owned(),
            (None, Some(better)) => format!("works; {} is better", better.transport),
        };
        transports.push(Choice {
            transport,
            works: failed.is_none(),
            why,
        });
    }
    let best = transports.iter().find(|choice| choice.works);
    let transport = best.map(|choice| choice.transport);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    Probe {
        kernel,
        directory: directory.to_path_buf(),
        trials: trials.to_vec(),
        transports,
        transport,
    }
}

/// Which transports a worker can use: each is tried when it is first wanted.
#[derive(Debug)]
pub(crate) struct Transports {
    root: PathBuf,
    has_events: bool,
    tried: [Tried; Transport::ALL.len()],
}

/// What came of a trial. What works goes on to work; what does not may do so later, when a full disk has room again.
#[derive(Debug, Default)]
struct Tried(Mutex<Option<(Instant, Result<(), String>)>>);

/// How long a failure counts.
const FAILED_FOR: Duration = Duration::from_secs(1);

impl Tried {
    fn get(&self, now: Instant, trial: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let mut last = self.0.lock();
        match &*last {
            Some((_, Ok(()))) => Ok(()),
            Some((since, Err(why))) if now.saturating_duration_since(*since) < FAILED_FOR => {
                Err(why.clone())
            }
            _ => {
                let result = trial();
                *last = Some((now, result.clone()));
                result
            }
        }
    }
}

impl Transports {
    pub(crate) fn new(root: &Path, has_events: bool) -> Self {
        Self {
            root: root.to_path_buf(),
            has_events,
            tried: Default::default(),
        }
    }

    fn ability(&self, index: usize, transport: Transport) -> Result<(), String> {
        let Some(tried) = self.tried.get(index) else {
            return Err("unknown".to_owned());
        };
        tried.get(Instant::now(), || {
            if transport == Transport::Fanotify && !self.has_events {
                return Err("the daemon could not get a group for pre-content events".to_owned());
            }
            for need in needs(transport) {
                let trial = try_out(need, &self.root);
                if !trial.works {
                    return Err(format!("{need}: {}", trial.why));
                }
            }
            Ok(())
        })
    }

    /// The transport for a mount: the one that is wanted, or the best.
    pub(crate) fn choose(&self, wanted: Option<Transport>) -> Result<Transport, MountError> {
        let mut reasons = Vec::new();
        for (index, transport) in (0..).zip(Transport::ALL) {
            if wanted.is_some_and(|wanted| wanted != transport) {
                continue;
            }
            match (self.ability(index, transport), wanted) {
                (Ok(()), _) => return Ok(transport),
                (Err(why), Some(_)) => return Err(MountError::Transport { transport, why }),
                (Err(why), None) => reasons.push(format!("{transport}: {why}")),
            }
        }
        let why = reasons.join("; ");
        Err(MountError::NoTransport { why })
    }
}

/// Whether an image in a file of that directory can be mounted without a loop device.
fn file_backed(directory: &Path) -> Ability {
    let tried = scratch_image(directory).map(|image| Detached::mount(image.path(), &[]));
    verdict(tried, "a file was mounted, without a loop device")
}

fn verdict(
    tried: io::Result<Result<Detached, draught_mount::MountError>>,
    why: &'static str,
) -> Ability {
    match tried {
        Ok(Ok(_detached)) => Ability::yes(why),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let reason = source.unwrap_or_default();
            Ability::no(format!(
                "{error}: {reason}; needs root and Linux 6.12 or later with CONFIG_EROFS_FS and \
                 CONFIG_EROFS_FS_BACKED_BY_FILE"
            ))
        }
        Err(error) => Ability::no(format!("could not make a file to try it with: {error}")),
    }
}

fn scratch_image(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut image = tempfile::Builder::new()
        .prefix(".probe-")
        .tempfile_in(directory)?;
    draught_erofs::write(
        &Tree::new(),
        &Placement::default(),
        &Options::default(),
        &mut image,
    )
    .map_err(io::Error::other)?;
    Ok(image)
}

/// The same with a file that FUSE exports.
fn over_fuse(directory: &Path) -> Ability {
    let tried = scratch_image(directory).and_then(|image| {
        let bytes = fs_err::read(image.path())?;
        let options = FuseOptions {
            source: "draught-probe".to_owned(),
            is_data_only: true,
            ..FuseOptions::default()
        };
        let (mount, device) = FuseMount::detached(&options).map_err(io::Error::other)?;
        let _session = Session::start(device, Arc::new(OneFile(bytes)), Start::New, 1)?;
        let path = format!("/proc/self/fd/{}/{NAME}", mount.as_fd().as_raw_fd());
        Ok(Detached::mount(Path::new(&path), &[]))
    });
    verdict(tried, "a file that FUSE exports was mounted")
}

const NAME: &str = "image";
const FILE: u64 = ROOT + 1;

/// A directory with one file.
#[derive(Debug)]
struct OneFile(Vec<u8>);

impl Files for OneFile {
    fn lookup(&self, parent: u64, name: &[u8]) -> io::Result<Attributes> {
        if (parent, name) == (ROOT, NAME.as_bytes()) {
            return self.attributes(FILE);
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn attributes(&self, inode: u64) -> io::Result<Attributes> {
        let (mode, bytes) = match inode {
            ROOT => (0o040_500, 0),
            FILE => (0o100_400, self.0.len() as u64),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Attributes {
            inode,
            bytes,
            mode,
            nlink: 1,
            ..Attributes::default()
        })
    }

    fn list(&self, _: u64, _: u64, _: &mut dyn FnMut(DirEntry<'_>) -> bool) -> io::Result<()> {
        Ok(())
    }

    fn target(&self, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn read(&self, _: u64, offset: u64, size: u32, reply: ReadReply) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        match self.0.get(start..end) {
            Some(bytes) => reply.data(bytes),
            None => reply.fail(&io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Probe {
    /// Why images can't be mounted here, if they can't.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        if self.transport.is_some() {
            return None;
        }
        let failed = self.trials.iter().filter(|trial| !trial.works);
        let reasons: Vec<String> = failed
            .map(|trial| format!("{}: {}", trial.what, trial.why))
            .collect();
        Some(format!(
            "images can't be mounted on this machine: {}",
            reasons.join("; ")
        ))
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("Linux {}, {}\n", self.kernel, self.directory.display());
        let yes_no = |works| if works { "yes" } else { "no " };
        for trial in &self.trials {
            let works = yes_no(trial.works);
            text.push_str(&format!("  {works}  {}: {}\n", trial.what, trial.why));
        }
        text.push_str("transports\n");
        for choice in &self.transports {
            let works = yes_no(choice.works);
            text.push_str(&format!(
                "  {works}  {}: {}\n",
                choice.transport, choice.why
            ));
        }
        match self.transport {
            Some(transport) => text.push_str(&format!("mounts use: {transport}\n")),
            None => text
                .push_str("images can't be mounted here; converting, checking and serving work\n"),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_is_tried_once_and_what_does_not_again_later() {
        let (tried, now) = (Tried::default(), Instant::now());
        let full = || Err("the disk is full".to_owned());
        assert!(tried.get(now, full).is_err());
        assert!(tried.get(now, || panic!("tried again at once")).is_err());
        assert!(tried.get(now + FAILED_FOR, || Ok(())).is_ok());
        assert!(tried.get(now + FAILED_FOR * 9, full).is_ok());
    }
}
