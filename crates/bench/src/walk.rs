//! What is done to a mounted tree: look at every inode, read every byte.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes asked for in one read, as `cat` and `tar` do.
const READ_BYTES: usize = 128 << 10;

/// All regular files below a directory, in the order of their names, and how long it took to look at
/// everything.
pub(crate) fn stat_all(root: &Path) -> Result<(Vec<PathBuf>, Duration)> {
    let start = Instant::now();
    let mut files = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs_err::read_dir(&directory)? {
            let path = entry?.path();
            let stat = fs_err::symlink_metadata(&path)?;
            if stat.is_dir() {
                pending.push(path);
            } else if stat.is_file() {
                files.push(path);
            }
        }
    }
    let took = start.elapsed();
    files.sort_unstable();
    Ok((files, took))
}

/// Reads files one after the other, by one thread; how many bytes, and how long it took.
pub(crate) fn read_all(files: &[PathBuf]) -> Result<(u64, Duration)> {
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    let start = Instant::now();
    for file in files {
        let mut file = fs_err::File::open(file)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => bytes += u64::try_from(read)?,
            }
        }
    }
    Ok((bytes, start.elapsed()))
}
