//! What a file tree is, as facts that can be compared: of a directory, or of the model.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use draught_digest::{Algorithm, Digest, Hasher};
use draught_tree::{Chunk, Kind, NodeId, Tree};
use rustix::fs::XattrFlags;

/// What a path is. Inode numbers are not compared, but [`Facts::first_name`] says which names
/// share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; 0 for directories, whose size is the filesystem's own matter.
    pub bytes: u64,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Names; 1 for directories, where filesystems differ.
    pub links: u64,
    /// Major and minor number of a device node, else zeros.
    pub device: (u32, u32),
    /// The target of a symbolic link.
    pub target: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// SHA-256 of a regular file's content.
    pub content: Option<Digest>,
    /// The first path, in byte order, of the same inode.
    pub first_name: Vec<u8>,
}

/// The facts of everything below a directory, by path; the directory itself is `/`.
pub type FactsOfTree = BTreeMap<Vec<u8>, Facts>;

/// The facts of a directory.
///
/// # Panics
///
/// If something in it can't be read.
#[must_use]
pub fn of_directory(root: &Path) -> FactsOfTree {
    let mut facts = FactsOfTree::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    visit(root, b"/", &mut facts);
    for path in facts.keys() {
        let real = root.join(OsStr::from_bytes(&path[1..]));
        let meta = fs_err::symlink_metadata(&real).unwrap();
        inodes
            .entry((meta.dev(), meta.ino()))
            .or_insert_with(|| path.clone());
    }
    for (path, fact) in &mut facts {
        let real = root.join(OsStr::from_bytes(&path[1..]));
        let meta = fs_err::symlink_metadata(&real).unwrap();
        fact.first_name = inodes[&(meta.dev(), meta.ino())].clone();
    }
    facts
}

fn visit(real: &Path, path: &[u8], facts: &mut FactsOfTree) {
    let meta = fs_err::symlink_metadata(real).unwrap();
    let kind = meta.file_type();
    let is_device = meta.mode() & 0o170_000 == 0o020_000 || meta.mode() & 0o170_000 == 0o060_000;
    let fact = Facts {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        bytes: if kind.is_dir() { 0 } else { meta.size() },
        mtime: (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap()),
        links: if kind.is_dir() { 1 } else { meta.nlink() },
        device: if is_device {
            let number = meta.rdev();
            (rustix::fs::major(number), rustix::fs::minor(number))
        } else {
            (0, 0)
        },
        target: if kind.is_symlink() {
            let target = fs_err::read_link(real).unwrap();
            target.into_os_string().into_vec()
        } else {
            Vec::new()
        },
        xattrs: xattrs(real),
        content: kind.is_file().then(|| digest_of(real)),
        first_name: Vec::new(),
    };
    facts.insert(path.to_vec(), fact);
    if kind.is_dir() {
        for entry in fs_err::read_dir(real).unwrap() {
            let entry = entry.unwrap();
            let mut child = path.to_vec();
            if path != b"/" {
                child.push(b'/');
            }
            child.extend_from_slice(entry.file_name().as_bytes());
            visit(&entry.path(), &child, facts);
        }
    }
}

fn digest_of(file: &Path) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut file = fs_err::File::open(file).unwrap();
    std::io::copy(&mut file, &mut hasher).unwrap();
    hasher.finish()
}

fn xattrs(real: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let Ok(len) = rustix::fs::llistxattr(real, &mut names) else {
        return BTreeMap::new();
    };
    let names = names[..len].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let len = rustix::fs::lgetxattr(real, OsStr::from_bytes(name), &mut value).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Gives a file an extended attribute.
///
/// # Panics
///
/// If the filesystem refuses.
pub fn set_xattr(file: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(file, name, value, XattrFlags::empty()).unwrap();
}

/// The facts of a tree; `content` gives the bytes of a chunk.
///
/// # Panics
///
/// If the tree names chunks that it doesn't have.
#[must_use]
pub fn of_tree(tree: &Tree, content: &dyn Fn(&Chunk) -> Vec<u8>) -> FactsOfTree {
    of_tree_with(tree, &|id| {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        if let Kind::File { chunks, .. } = &tree.node(id).kind {
            for chunk in chunks {
                hasher.update(&content(tree.map.chunk(*chunk).unwrap()));
            }
        }
        hasher.finish()
    })
}

/// The facts of a tree; `content` gives the SHA-256 of a file.
///
/// # Panics
///
/// If `content` does.
#[must_use]
pub fn of_tree_with(tree: &Tree, content: &dyn Fn(NodeId) -> Digest) -> FactsOfTree {
    let mut facts = FactsOfTree::new();
    let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    for (mut path, id) in tree.walk() {
        if path.is_empty() {
            path = b"/".to_vec();
        }
        let node = tree.node(id);
        let meta = &node.meta;
        let mut fact = Facts {
            mode: node.st_mode(),
            uid: meta.uid,
            gid: meta.gid,
            bytes: 0,
            mtime: (meta.mtime, meta.mtime_nsec),
            links: u64::from(node.names),
            device: (0, 0),
            target: Vec::new(),
            xattrs: meta
                .xattrs
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
            content: None,
            first_name: Vec::new(),
        };
        match &node.kind {
            Kind::File { bytes, .. } => {
                fact.bytes = *bytes;
                fact.content = Some(content(id));
            }
            Kind::Symlink(target) => {
                fact.bytes = u64::try_from(target.len()).unwrap();
                fact.target = target.to_vec();
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                fact.device = (*major, *minor);
            }
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        // Walks go by directory, names are compared as whole paths.
        let least = first.entry(id).or_insert_with(|| path.clone());
        if path < *least {
            least.clone_from(&path);
        }
        facts.insert(path, fact);
    }
    for (mut path, id) in tree.walk() {
        if path.is_empty() {
            path = b"/".to_vec();
        }
        facts.get_mut(&path).unwrap().first_name = first[&id].clone();
    }
    facts
}

/// Compares; names the first paths that differ.
///
/// # Panics
///
/// If they differ.
#[track_caller]
pub fn assert_same(got: &FactsOfTree, expected: &FactsOfTree) {
    const SHOWN_MAX: usize = 5;
    let paths: std::collections::BTreeSet<_> = got.keys().chain(expected.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| got.get(*path) != expected.get(*path));
    let differ: Vec<_> = differ.collect();
    let shown = differ.iter().take(SHOWN_MAX).map(|path| {
        let name = String::from_utf8_lossy(path);
        format!(
            "{name}\n     got: {:?}\nexpected: {:?}",
            got.get(*path),
            expected.get(*path)
        )
    });
    let shown: Vec<_> = shown.collect();
    assert!(
        differ.is_empty(),
        "{} paths differ, the first of them:\n{}",
        differ.len(),
        shown.join("\n")
    );
}
