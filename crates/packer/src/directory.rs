//! A directory tree as a layer.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use draught_tree::{Entry, EntryKind, Meta, Xattrs};
use rustix::fs::{Mode, OFlags};

use crate::layer::{Content, PackLayerError};

/// Attempts to read an attribute whose size changes meanwhile.
const XATTR_ATTEMPTS: usize = 8;

/// Why a directory can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Something in it can't be read.
    #[error("failed to read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The root is no directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
}

/// Gives the entries of a directory tree: names in byte order, a directory before its children. Further
/// names of a file are hard links to its first. Other filesystems mounted in it are walked as well.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// What is still to be visited, the next at the back.
    stack: Vec<Vec<u8>>,
    /// The first name of each file with several, by device and inode.
    links: HashMap<(u64, u64), Box<[u8]>>,
    /// The file whose content is read.
    file: Option<fs_err::File>,
}

impl Directory {
    /// The tree at `root`.
    ///
    /// # Errors
    /// [`DirectoryError`] if it is no directory.
    pub fn open(root: &Path) -> Result<Self, DirectoryError> {
        let meta = fs_err::metadata(root).map_err(|source| DirectoryError::Io {
            path: root.to_owned(),
            source,
        })?;
        if !meta.is_dir() {
            return Err(DirectoryError::NotADirectory {
                path: root.to_owned(),
            });
        }
        Ok(Self {
            root: root.to_owned(),
            stack: vec![Vec::new()],
            links: HashMap::new(),
            file: None,
        })
    }

    fn next(&mut self) -> Result<Option<Entry>, DirectoryError> {
        self.file = None;
        let Some(path) = self.stack.pop() else {
            return Ok(None);
        };
        let full = if path.is_empty() {
            // The root itself may be reached through a symbolic link.
            self.root.join(".")
        } else {
            self.root.join(OsString::from_vec(path.clone()))
        };
        let failed = |source| DirectoryError::Io {
            path: full.clone(),
            source,
        };
        let meta = fs_err::symlink_metadata(&full).map_err(failed)?;
        let kind = self.kind(&path, &full, &meta).map_err(failed)?;
        let xattrs = match kind {
            EntryKind::HardLink(_) => Xattrs::new(),
            _ => xattrs(&full).map_err(failed)?,
        };
        Ok(Some(Entry {
            path: path.into_boxed_slice(),
            meta: Meta {
                mode: u16::try_from(meta.mode() & 0o7777).unwrap_or_default(),
                uid: meta.uid(),
                gid: meta.gid(),
                mtime: meta.mtime(),
                mtime_nsec: u32::try_from(meta.mtime_nsec()).unwrap_or_default(),
                xattrs,
            },
            kind,
        }))
    }

    fn kind(&mut self, path: &[u8], full: &Path, meta: &Metadata) -> io::Result<EntryKind> {
        let file_type = meta.file_type();
        if file_type.is_dir() {
            self.push_children(path, full)?;
            return Ok(EntryKind::Directory);
        }
        if meta.nlink() > 1 {
            let first = self.links.entry((meta.dev(), meta.ino()));
            if let std::collections::hash_map::Entry::Occupied(first) = &first {
                return Ok(EntryKind::HardLink(first.get().clone()));
            }
            first.or_insert_with(|| path.into());
        }
        let device = (
            rustix::fs::major(meta.rdev()),
            rustix::fs::minor(meta.rdev()),
        );
        Ok(if file_type.is_file() {
            let file = open(full)?;
            // Of what was opened: the path may lead elsewhere by now.
            let bytes = file.metadata()?.len();
            self.file = Some(file);
            EntryKind::File {
                bytes,
                chunks: Box::default(),
            }
        } else if file_type.is_symlink() {
            let target = fs_err::read_link(full)?;
            EntryKind::Symlink(target.as_os_str().as_bytes().into())
        } else if file_type.is_char_device() {
            let (major, minor) = device;
            EntryKind::CharDevice { major, minor }
        } else if file_type.is_block_device() {
            let (major, minor) = device;
            EntryKind::BlockDevice { major, minor }
        } else if file_type.is_fifo() {
            EntryKind::Fifo
        } else {
            EntryKind::Socket
        })
    }

    fn push_children(&mut self, path: &[u8], full: &Path) -> io::Result<()> {
        let mut names = fs_err::read_dir(full)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        // The last one first: the stack is popped.
        names.sort_unstable_by(|a, b| b.cmp(a));
        for name in names {
            let mut child = Vec::with_capacity(path.len() + 1 + name.len());
            child.extend_from_slice(path);
            if !path.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name.as_bytes());
            self.stack.push(child);
        }
        Ok(())
    }
}

/// Opens a file that must still be one: a pipe in its place would block.
fn open(path: &Path) -> io::Result<fs_err::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(fs_err::File::from_parts(file.into(), path))
}

/// Extended attributes, without following links; sorted by name.
fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let list = sized(
        || rustix::fs::llistxattr_query(path),
        |buffer| rustix::fs::llistxattr(path, buffer),
    )?;
    let Some(list) = list else {
        return Ok(Xattrs::new());
    };
    let mut xattrs = Xattrs::new();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        // One that vanishes meanwhile was never there.
        let value = sized(
            || rustix::fs::lgetxattr_query(path, name),
            |buffer| rustix::fs::lgetxattr(path, name, buffer),
        )?;
        if let Some(value) = value {
            xattrs.push((name.into(), value.into_boxed_slice()));
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Asks for a size, then for so many bytes; `None` where there is nothing, or no such thing.
fn sized(
    query: impl Fn() -> rustix::io::Result<usize>,
    call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..XATTR_ATTEMPTS {
        let outcome = query().and_then(|bytes| {
            let mut buffer = vec![0; bytes];
            let bytes = if bytes == 0 { 0 } else { call(&mut buffer)? };
            buffer.truncate(bytes);
            Ok(buffer)
        });
        match outcome {
            Ok(buffer) => return Ok(Some(buffer)),
            Err(rustix::io::Errno::RANGE) => {}
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NODATA) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("an extended attribute keeps changing"))
}

impl Content for Directory {
    fn next_entry(&mut self) -> Result<Option<Entry>, PackLayerError> {
        Ok(self.next()?)
    }

    fn read_data(&mut self, out: &mut [u8]) -> Result<usize, PackLayerError> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        loop {
            match file.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let path = file.path().to_owned();
                    return Err(DirectoryError::Io { path, source }.into());
                }
                Ok(read) => return Ok(read),
            }
        }
    }
}

impl From<DirectoryError> for PackLayerError {
    fn from(source: DirectoryError) -> Self {
        Self::Directory { source }
    }
}
