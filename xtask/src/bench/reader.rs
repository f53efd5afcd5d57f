//! The reader that all filesystems get: one thread that goes through the tree as `tar` would, a
//! directory's names in their order, and descends into a directory where it finds it.

use std::fs::Metadata;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;
use std::vec::IntoIter;

use anyhow::Result;
use draught_digest::{Algorithm, Digest, Hasher};
use fs_err::DirEntry;

/// What one `read` asks for: as much as `cat` and `cp` do.
const BUFFER_BYTES: usize = 128 << 10;

/// What a pass over a tree took and saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// Seconds.
    pub(crate) wall_s: f64,
    /// Entries of all types, the root not among them.
    pub(crate) entries: u64,
    /// Bytes that were read.
    pub(crate) bytes: u64,
}

/// Looks at every entry of a tree (`lstat`).
pub(crate) fn stat_all(dir: &Path) -> Result<Pass> {
    pass(dir, |_, _| Ok(0))
}

/// Looks at every entry and reads every regular file whole.
pub(crate) fn read_all(dir: &Path) -> Result<Pass> {
    let mut buffer = vec![0; BUFFER_BYTES];
    pass(dir, |path, meta| {
        let mut bytes = 0;
        if meta.is_file() {
            let mut file = fs_err::File::open(path)?;
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    len => bytes += u64::try_from(len)?,
                }
            }
        }
        Ok(bytes)
    })
}

/// A digest of every path and of every file's content: equal trees have equal ones.
pub(crate) fn fingerprint(dir: &Path) -> Result<Digest> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = Hasher::new(Algorithm::Sha256);
    pass(dir, |path, meta| {
        let name = path.strip_prefix(dir)?.as_os_str().as_encoded_bytes();
        hasher.update(name);
        hasher.update(&[0]);
        hasher.update(&if meta.is_file() { meta.len() } else { 0 }.to_le_bytes());
        if meta.is_file() {
            let mut file = fs_err::File::open(path)?;
            loop {
                let len = file.read(&mut buffer)?;
                if len == 0 {
                    break;
                }
                hasher.update(buffer.get(..len).unwrap_or_default());
            }
        }
        Ok(0)
    })?;
    Ok(hasher.finish())
}

/// Reads the first byte of a file.
pub(crate) fn first_byte(path: &Path) -> Result<()> {
    fs_err::File::open(path)?.read_exact(&mut [0])?;
    Ok(())
}

fn pass(dir: &Path, mut visit: impl FnMut(&Path, &Metadata) -> Result<u64>) -> Result<Pass> {
    let begun = Instant::now();
    let (mut entries, mut bytes) = (0, 0);
    let mut open = vec![sorted(dir)?];
    while let Some(directory) = open.last_mut() {
        let Some(entry) = directory.next() else {
            open.pop();
            continue;
        };
        let meta = entry.metadata()?;
        let path = entry.path();
        entries += 1;
        bytes += visit(&path, &meta)?;
        if meta.is_dir() {
            open.push(sorted(&path)?);
        }
    }
    Ok(Pass {
        wall_s: begun.elapsed().as_secs_f64(),
        entries,
        bytes,
    })
}

/// A directory's entries by their names: each filesystem lists them in an order of its own.
fn sorted(dir: &Path) -> Result<IntoIter<DirEntry>> {
    let entries = fs_err::read_dir(dir)?;
    let mut entries = entries.collect::<std::io::Result<Vec<DirEntry>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_sees_everything_and_a_fingerprint_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs_err::create_dir_all(dir.join("a/b")).unwrap();
        fs_err::write(dir.join("a/b/file"), b"12345").unwrap();
        fs_err::write(dir.join("z"), b"123").unwrap();
        let stat = stat_all(dir).unwrap();
        assert_eq!((stat.entries, stat.bytes), (4, 0));
        let read = read_all(dir).unwrap();
        assert_eq!((read.entries, read.bytes), (4, 8));
        let before = fingerprint(dir).unwrap();
        assert_eq!(fingerprint(dir).unwrap(), before);
        fs_err::write(dir.join("z"), b"124").unwrap();
        assert_ne!(fingerprint(dir).unwrap(), before);
    }
}
