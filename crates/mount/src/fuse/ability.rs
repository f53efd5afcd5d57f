//! Whether FUSE works here, found out by using it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::answer::ReadReply;
use super::files::{Attributes, DirEntry, Files, ROOT};
use super::mounting::{FuseError, FuseOptions, mount, unmount};
use super::session::{Session, Start};
use crate::probe::Ability;

/// Why the trial failed.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error("could not mount")]
    Mount(#[source] FuseError),
    #[error("could not serve")]
    Serve(#[source] io::Error),
    #[error("could not use a scratch directory")]
    Scratch(#[source] io::Error),
    #[error("a file read back as {0:?}")]
    Content(String),
}

/// Whether this user can mount and serve a FUSE filesystem, tried with a small one in a scratch directory in
/// `directory`. Its words also say if sessions can't be resumed here.
#[must_use]
pub fn fuse_ability(directory: &Path) -> Ability {
    match trial(directory) {
        Ok(resumed) => {
            let mut why = "FUSE works".to_owned();
            if !rustix::process::geteuid().is_root() {
                why.push_str(", for this user alone");
            }
            if let Err(error) = resumed {
                why.push_str(", but not across crashes: ");
                why.push_str(&error.to_string());
            }
            Ability::yes(why)
        }
        Err(error) => {
            let mut why = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                why.push_str(": ");
                why.push_str(&error.to_string());
                cause = error.source();
            }
            Ability::no(why)
        }
    }
}

/// What resuming a session said.
type Resumed = io::Result<()>;

fn trial(directory: &Path) -> Result<Resumed, TrialError> {
    let scratch = directory.join(format!(".probe-fuse-{}", std::process::id()));
    fs_err::create_dir(&scratch).map_err(TrialError::Scratch)?;
    let result = trial_on(&scratch);
    fs_err::remove_dir(&scratch).map_err(TrialError::Scratch)?;
    result
}

fn trial_on(scratch: &Path) -> Result<Resumed, TrialError> {
    let options = FuseOptions {
        source: "draught-probe".to_owned(),
        is_data_only: true,
        ..FuseOptions::default()
    };
    let device = mount(scratch, &options).map_err(TrialError::Mount)?;
    let result = served(device, scratch);
    // In use or not: nobody but us knows of it.
    unmount(scratch, true).map_err(TrialError::Mount)?;
    result
}

fn served(device: OwnedFd, scratch: &Path) -> Result<Resumed, TrialError> {
    let kept = device.try_clone().map_err(TrialError::Serve)?;
    let session = Session::start(device, Arc::new(OneFile), Start::New, 1);
    let session = session.map_err(TrialError::Serve)?;
    let content = fs_err::read_to_string(scratch.join(NAME)).map_err(TrialError::Serve)?;
    if content != CONTENT {
        return Err(TrialError::Content(content));
    }
    drop(session.stop());
    let resumed = Session::start(kept, Arc::new(OneFile), Start::Resumed, 1);
    Ok(resumed.map(|session| drop(session.stop())))
}

const NAME: &str = "file";
const CONTENT: &str = "it works\n";
const FILE: u64 = 2;

/// A directory with one file.
pub(super) struct OneFile;

impl Files for OneFile {
    fn lookup(&self, parent: u64, name: &[u8]) -> io::Result<Attributes> {
        if (parent, name) == (ROOT, NAME.as_bytes()) {
            return self.attributes(FILE);
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn attributes(&self, inode: u64) -> io::Result<Attributes> {
        let (mode, nlink, bytes) = match inode {
            ROOT => (0o040_555, 2, 0),
            FILE => (0o100_444, 1, CONTENT.len() as u64),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Attributes {
            inode,
            bytes,
            mode,
            nlink,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..Attributes::default()
        })
    }

    fn list(
        &self,
        _inode: u64,
        _offset: u64,
        _add: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> io::Result<()> {
        Ok(())
    }

    fn target(&self, _inode: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn read(&self, _inode: u64, _offset: u64, _size: u32, reply: ReadReply) {
        reply.data(CONTENT.as_bytes());
    }
}
