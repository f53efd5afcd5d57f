//! `fusermount3`, the set-user-id program of libfuse that mounts for ordinary users.
//!
//! It is told a Unix socket by `_FUSE_COMMFD` and passes the `/dev/fuse` descriptor over it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::mounting::{FuseError, FuseOptions};

const PROGRAM: &str = "fusermount3";

/// Characters of its words that an error carries.
const WORDS_MAX: usize = 1024;

pub(super) fn mount(target: &Path, options: &FuseOptions) -> Result<OwnedFd, FuseError> {
    let no_descriptor = |source: io::Error| FuseError::NoDescriptor {
        path: target.to_path_buf(),
        source,
    };
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| no_descriptor(errno.into()))?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(list(options)).arg("--").arg(target);
    // The socket is its standard input: the one descriptor that no other child can inherit by accident.
    command.env("_FUSE_COMMFD", "0").stdin(theirs);
    run(command, target)?;
    let mut byte = [0];
    let received = draught_sys::scm::receive(ours.as_fd(), &mut byte);
    let (_, descriptors) = received.map_err(no_descriptor)?;
    let device = descriptors.into_iter().next();
    device.ok_or_else(|| no_descriptor(io::ErrorKind::UnexpectedEof.into()))
}

pub(super) fn unmount(target: &Path, even_in_use: bool) -> Result<(), FuseError> {
    let mut command = Command::new(PROGRAM);
    command.arg("-u");
    if even_in_use {
        command.arg("-z");
    }
    command.arg("--").arg(target).stdin(Stdio::null());
    run(command, target)
}

/// Runs it to its end; our copy of the socket's other end is closed then.
fn run(mut command: Command, target: &Path) -> Result<(), FuseError> {
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(FuseError::NoHelper)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().chars().take(WORDS_MAX).collect();
    Err(FuseError::HelperRefused {
        path: target.to_path_buf(),
        status: output.status,
        said,
    })
}

/// The options as one list; commas in names are escaped.
fn list(options: &FuseOptions) -> String {
    let escape = |name: &str| name.replace('\\', "\\\\").replace(',', "\\,");
    let mut list = format!(
        "ro,nosuid,nodev,fsname={},subtype={}",
        escape(&options.source),
        escape(&options.subtype)
    );
    if options.is_data_only {
        list.push_str(",noexec");
    }
    if options.allow_other {
        list.push_str(",allow_other");
    }
    if options.default_permissions {
        list.push_str(",default_permissions");
    }
    if let Some(bytes) = options.read_bytes_max {
        list.push_str(&format!(",max_read={bytes}"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_list_in_which_names_keep_their_commas() {
        let options = FuseOptions {
            source: r"a,b\c".to_owned(),
            subtype: "draught".to_owned(),
            allow_other: false,
            default_permissions: true,
            read_bytes_max: Some(65536),
            is_data_only: true,
        };
        let expect = r"ro,nosuid,nodev,fsname=a\,b\\c,subtype=draught,noexec,default_permissions,max_read=65536";
        assert_eq!(list(&options), expect);
    }
}
