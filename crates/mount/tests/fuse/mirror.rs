//! A directory served as it is.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use draught_mount::fuse::{Attributes, DirEntry, Files, ROOT, ReadReply};

/// What a test does with a read: it gets the path in the mirrored directory, the bytes and the duty.
pub(crate) type OnRead = Box<dyn Fn(&Path, Vec<u8>, ReadReply) + Send + Sync>;

/// Serves what is in a directory, under its inode numbers: the same in every process.
pub(crate) struct Mirror {
    root: PathBuf,
    /// Paths below `root` by inode; all that were there at the start.
    paths: RwLock<BTreeMap<u64, PathBuf>>,
    on_read: OnRead,
    pub(crate) lookups: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    pub(crate) lists: AtomicUsize,
    pub(crate) is_final: bool,
}

impl Mirror {
    pub(crate) fn of(root: &Path) -> Self {
        Self::with(root, Box::new(|_path, bytes, reply| reply.data(&bytes)))
    }

    pub(crate) fn with(root: &Path, on_read: OnRead) -> Self {
        let mirror = Self {
            root: root.to_owned(),
            paths: RwLock::new(BTreeMap::from([(ROOT, PathBuf::new())])),
            on_read,
            lookups: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            is_final: true,
        };
        mirror.add(Path::new(""));
        mirror
    }

    fn add(&self, directory: &Path) {
        for entry in fs_err::read_dir(self.root.join(directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            let meta = entry.metadata().unwrap();
            self.paths.write().insert(meta.ino(), path.clone());
            if meta.is_dir() {
                self.add(&path);
            }
        }
    }

    fn path(&self, inode: u64) -> io::Result<PathBuf> {
        let path = self.paths.read().get(&inode).cloned();
        path.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn real_path(&self, inode: u64) -> io::Result<PathBuf> {
        Ok(self.root.join(self.path(inode)?))
    }

    fn of_path(&self, path: &Path) -> io::Result<Attributes> {
        let meta = fs_err::symlink_metadata(self.root.join(path))?;
        let rdev = meta.rdev();
        Ok(Attributes {
            inode: if path.as_os_str().is_empty() {
                ROOT
            } else {
                meta.ino()
            },
            bytes: meta.len(),
            mode: meta.mode(),
            nlink: u32::try_from(meta.nlink()).unwrap(),
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: (rustix::fs::major(rdev), rustix::fs::minor(rdev)),
            mtime: meta.mtime(),
            mtime_nanos: u32::try_from(meta.mtime_nsec()).unwrap(),
        })
    }
}

impl Files for Mirror {
    fn is_final(&self) -> bool {
        self.is_final
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> io::Result<Attributes> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let parent = self.path(parent)?;
        let path = parent.join(std::ffi::OsStr::from_bytes(name));
        let found = self.of_path(&path)?;
        self.paths.write().entry(found.inode).or_insert(path);
        Ok(found)
    }

    fn attributes(&self, inode: u64) -> io::Result<Attributes> {
        self.of_path(&self.path(inode)?)
    }

    fn list(
        &self,
        inode: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> io::Result<()> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let directory = self.path(inode)?;
        let parent = directory.parent().unwrap_or(Path::new("")).to_owned();
        let mut entries = vec![
            (b".".to_vec(), self.of_path(&directory)?),
            (b"..".to_vec(), self.of_path(&parent)?),
        ];
        let mut named: Vec<_> = fs_err::read_dir(self.root.join(&directory))?
            .map(|entry| entry.unwrap().file_name())
            .collect();
        named.sort();
        let start = usize::try_from(offset).unwrap();
        for name in named.iter().skip(start.saturating_sub(2)).take(2000) {
            let found = self.of_path(&directory.join(name))?;
            entries.push((name.as_bytes().to_vec(), found));
        }
        let skipped = start.saturating_sub(2);
        let entries = (0..)
            .map(|at: usize| if at < 2 { at } else { at + skipped })
            .zip(entries)
            .filter(|(at, _)| *at >= start);
        for (at, (name, found)) in entries {
            let is_wanted = add(DirEntry {
                inode: found.inode,
                next: u64::try_from(at + 1).unwrap(),
                mode: found.mode,
                name: &name,
            });
            if !is_wanted {
                break;
            }
        }
        Ok(())
    }

    fn target(&self, inode: u64) -> io::Result<Vec<u8>> {
        let target = fs_err::read_link(self.real_path(inode)?)?;
        Ok(target.as_os_str().as_bytes().to_vec())
    }

    fn xattr(&self, inode: u64, name: &[u8]) -> io::Result<Vec<u8>> {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(self.real_path(inode)?, name, &mut value[..])?;
        value.truncate(len);
        Ok(value)
    }

    fn xattr_names(&self, inode: u64) -> io::Result<Vec<Vec<u8>>> {
        let mut names = vec![0; 65_536];
        let len = rustix::fs::llistxattr(self.real_path(inode)?, &mut names[..])?;
        let names = names[..len].split(|byte| *byte == 0);
        Ok(names
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn read(&self, inode: u64, offset: u64, size: u32, reply: ReadReply) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        let path = self.path(inode).unwrap();
        let read = fs_err::File::open(self.root.join(&path))
            .and_then(|file| file.file().read_exact_at(&mut bytes, offset));
        match read {
            Ok(()) => (self.on_read)(&path, bytes, reply),
            Err(error) => reply.fail(&error),
        }
    }
}
