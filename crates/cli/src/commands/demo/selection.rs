//! Which files of this machine make the image, layer by layer.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use super::cancel::Cancel;
use super::runtime::{LEFT_OUT, Runtime};

/// Symbolic links followed for one path, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Where the files come from that are there to be carried along, as in every real image, most of them
/// read by nobody: a layer each.
const BALLAST: &[(&str, &[&str])] = &[
    ("data", &["/usr/share"]),
    (
        "programs",
        &["/usr/lib", "/usr/bin", "/usr/libexec", "/usr/sbin", "/opt"],
    ),
];

/// Directories that a container expects, empty.
const SKELETON: &[&str] = &[
    "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/usr", "/var",
];

/// The paths of a layer, parents first: what to take from the machine.
#[derive(Debug)]
pub(crate) struct Selection {
    /// For people.
    pub(crate) name: &'static str,
    /// Absolute paths on this machine, and the same in the image.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// Bytes of file content.
    pub(crate) bytes: u64,
}

/// Chooses paths; a path that a lower layer has is not chosen again.
#[derive(Debug)]
struct Chooser<'a> {
    cancel: &'a Cancel,
    taken: BTreeSet<PathBuf>,
    paths: BTreeSet<PathBuf>,
    bytes: u64,
}

/// The layers of the demonstration's image, lowest first.
pub(crate) fn layers(
    runtime: &Runtime,
    ballast_bytes: u64,
    cancel: &Cancel,
) -> Result<Vec<Selection>> {
    let mut chooser = Chooser {
        cancel,
        taken: BTreeSet::new(),
        paths: BTreeSet::new(),
        bytes: 0,
    };
    for path in SKELETON.iter().map(Path::new).filter(|path| path.is_dir()) {
        chooser.one(path)?;
    }
    for path in &runtime.libraries {
        chooser.one(path)?;
    }
    let base = chooser.layer("libraries");
    for path in &runtime.parts {
        chooser.all(path, u64::MAX)?;
    }
    let program = chooser.layer("runtime");
    let mut layers = vec![base, program];
    let mut left = ballast_bytes;
    for (index, (name, roots)) in BALLAST.iter().enumerate() {
        // An equal share of what is left: a layer that finds less leaves more to the next.
        let layers_left = u64::try_from(BALLAST.len() - index).unwrap_or(1);
        let share = left / layers_left;
        for root in roots.iter().map(Path::new).filter(|path| path.is_dir()) {
            chooser.all(root, share)?;
        }
        let layer = chooser.layer(name);
        left = left.saturating_sub(layer.bytes);
        layers.push(layer);
    }
    Ok(layers)
}

impl Chooser<'_> {
    /// Ends a layer.
    fn layer(&mut self, name: &'static str) -> Selection {
        Selection {
            name,
            paths: std::mem::take(&mut self.paths),
            bytes: std::mem::take(&mut self.bytes),
        }
    }

    /// Takes one path without following it, if it can be taken.
    fn take(&mut self, path: &Path) {
        let Ok(stat) = fs_err::symlink_metadata(path) else {
            return;
        };
        let kind = stat.file_type();
        let readable = !kind.is_file() || fs_err::File::open(path).is_ok();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) || !readable {
            return;
        }
        if self.taken.insert(path.to_owned()) {
            if kind.is_file() {
                self.bytes = self.bytes.saturating_add(stat.len());
            }
            self.paths.insert(path.to_owned());
        }
    }

    /// Takes a path with everything that leads to it: directories and symbolic links, and what
    /// the links point to.
    fn one(&mut self, path: &Path) -> Result<PathBuf> {
        let mut links = 0;
        let mut real = PathBuf::from("/");
        let mut pending: Vec<_> = components(path);
        while let Some(name) = pending.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            self.take(&next);
            match fs_err::read_link(&next) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        bail!("follow {}: too many symbolic links", path.display());
                    }
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    pending.extend(components(&target));
                }
                // Not a link.
                Err(_) => real = next,
            }
        }
        Ok(real)
    }

    /// Takes a path and all that is below it on the same filesystem, until the layer has
    /// `bytes_max` bytes.
    fn all(&mut self, path: &Path, bytes_max: u64) -> Result<()> {
        let real = self.one(path)?;
        let device = fs_err::symlink_metadata(&real)?.dev();
        let mut pending = vec![real];
        while let Some(path) = pending.pop() {
            self.cancel.check()?;
            self.take(&path);
            if self.bytes >= bytes_max {
                return Ok(());
            }
            let Ok(stat) = fs_err::symlink_metadata(&path) else {
                continue;
            };
            let skipped = path
                .file_name()
                .is_some_and(|name| LEFT_OUT.iter().any(|it| name == *it));
            if stat.is_dir() && stat.dev() == device && !skipped {
                // A directory that cannot be read stays empty.
                let Ok(entries) = fs_err::read_dir(&path) else {
                    continue;
                };
                let mut names: Vec<PathBuf> = entries.flatten().map(|it| it.path()).collect();
                names.sort_unstable_by(|one, other| other.cmp(one));
                pending.extend(names);
            }
        }
        Ok(())
    }
}

/// The names of a path in reverse, so that the next one is popped; `..` stays.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let names = path.components().rev();
    names
        .filter(|it| matches!(it, Component::Normal(_) | Component::ParentDir))
        .map(|it| it.as_os_str().to_owned())
        .collect()
}
