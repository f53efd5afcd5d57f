//! An image of ten layers, and versions of it in which one is another.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_digest::Digest;
use draught_testkit::images::{Layer, Packing, write_layout};

use crate::bench::image::{self, Which};
use crate::bench::interrupt::Interrupt;
use crate::run::{command, run, say};

/// Layers of the image.
pub(super) const LAYERS: usize = 10;

/// What an entry is counted as, beside its content: a header.
const ENTRY_BYTES: u64 = 512;

/// Bytes of the file that a changed layer has and the original does not.
const NEW_FILE_BYTES: usize = 100_000;

/// The archives of the layers.
#[derive(Debug)]
pub(super) struct Slices {
    archives: Vec<PathBuf>,
    dir: PathBuf,
}

impl Slices {
    /// Cuts the base image into layers of the same size, by path, in `dir`.
    pub(super) fn cut(dir: &Path, interrupt: &Interrupt) -> Result<Self> {
        let tree = dir.join("tree");
        fs_err::create_dir_all(&tree)?;
        image::unpack(&Which::A.archive()?, &tree)?;
        let mut entries = Vec::new();
        walk(&tree, Path::new("."), &mut entries)?;
        say(&format!("packing in {LAYERS} layers"));
        let mut archives = Vec::new();
        for (number, slice) in slices(&entries).into_iter().enumerate() {
            interrupt.check()?;
            let list = dir.join("list");
            fs_err::write(&list, slice.join("\0"))?;
            let archive = dir.join(format!("slice{number}.tar"));
            let mut pack = command("tar", &["--numeric-owner", "--xattrs"]);
            pack.args(["--xattrs-include=*", "--no-recursion", "-cf"]);
            pack.arg(&archive).arg("-C").arg(&tree);
            pack.args(["--null", "--files-from"]).arg(&list);
            run(&mut pack).context("pack a layer")?;
            archives.push(archive);
        }
        fs_err::remove_dir_all(tree)?;
        Ok(Self {
            archives,
            dir: dir.to_owned(),
        })
    }

    /// An OCI layout `name` with gzipped layers. That with the number `changed` has one more file.
    pub(super) fn layout(&self, name: &str, changed: Option<usize>) -> Result<PathBuf> {
        let mut archives = self.archives.clone();
        if let Some(archive) = changed.and_then(|changed| archives.get_mut(changed)) {
            let copy = self.dir.join("changed.tar");
            fs_err::copy(&*archive, &copy)?;
            let more = self.dir.join("more");
            fs_err::create_dir_all(&more)?;
            fs_err::write(more.join("new-file"), new_file(name))?;
            let mut append = command("tar", &["--numeric-owner", "-rf"]);
            run(append.arg(&copy).arg("-C").arg(&more).arg("./new-file"))
                .context("change a layer")?;
            *archive = copy;
        }
        let layers = archives.iter().map(|archive| {
            let archive = Box::new(fs_err::File::open(archive)?);
            let packing = Packing::Gzip;
            Ok(Layer { archive, packing })
        });
        let layout = self.dir.join(name);
        write_layout(&layout, layers.collect::<Result<Vec<_>>>()?)?;
        Ok(layout)
    }
}

/// Content that no other version has.
fn new_file(name: &str) -> Vec<u8> {
    let mut content = Vec::with_capacity(NEW_FILE_BYTES);
    let mut digest = Digest::blake3(name.as_bytes());
    while content.len() < NEW_FILE_BYTES {
        content.extend_from_slice(digest.as_bytes());
        digest = Digest::blake3(digest.as_bytes());
    }
    content
}

/// All entries below a directory with their sizes: names in order, parents before what they hold.
fn walk(root: &Path, dir: &Path, entries: &mut Vec<(String, u64)>) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(root.join(dir))? {
        let name = entry?.file_name();
        names.push(name.into_string().ok().context("a name is not UTF-8")?);
    }
    names.sort_unstable();
    for name in names {
        let path = dir.join(name);
        let meta = fs_err::symlink_metadata(root.join(&path))?;
        let bytes = if meta.is_file() { meta.len() } else { 0 };
        let words = path.to_str().context("a name is not UTF-8")?.to_owned();
        entries.push((words, bytes + ENTRY_BYTES));
        if meta.is_dir() {
            walk(root, &path, entries)?;
        }
    }
    Ok(())
}

/// The paths in [`LAYERS`] slices of about the same size.
fn slices(entries: &[(String, u64)]) -> Vec<Vec<&str>> {
    let all: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
    let mut slices: Vec<Vec<&str>> = vec![Vec::new(); LAYERS];
    let mut before = 0;
    for (path, bytes) in entries {
        let at = before * LAYERS as u64 / all.max(1);
        let slice = usize::try_from(at).ok().and_then(|at| slices.get_mut(at));
        if let Some(slice) = slice {
            slice.push(path);
        }
        before += bytes;
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_of_one_size_and_have_everything_once() {
        let entries: Vec<(String, u64)> = (0..1000).map(|at| (format!("{at}"), 512)).collect();
        let slices = slices(&entries);
        assert!(slices.iter().all(|slice| slice.len() == 100));
        let together: Vec<&str> = slices.into_iter().flatten().collect();
        let expect: Vec<&str> = entries.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(together, expect);
    }

    #[test]
    fn versions_differ() {
        assert_ne!(new_file("one"), new_file("two"));
        assert!(new_file("one").len() >= NEW_FILE_BYTES);
    }
}
