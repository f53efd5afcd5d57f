//! Images of many small files, each with content that no other has.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Result;
use draught_digest::Digest;
use draught_tar::Writer;
use draught_testkit::images::{Layer, Packing, write_layout};
use draught_tree::{Entry, EntryKind, Meta};

/// Files in one directory.
const FILES_PER_DIRECTORY: u32 = 100;

/// Bytes of the smallest and the largest file: within a chunk, and within a block of a device.
const FILE_BYTES_MIN: u64 = 64;
const FILE_BYTES_MAX: u64 = 1024;

/// An OCI layout in `dir` with an image of so many files. Images with different seeds share nothing.
pub(crate) fn layout(files: u32, seed: u64, dir: &Path) -> Result<PathBuf> {
    let archive = dir.join("generated.tar");
    let layout = dir.join("generated");
    let out = BufWriter::new(fs_err::File::create(&archive)?);
    write(files, seed, &[], out)?;
    let layer = Layer {
        archive: Box::new(fs_err::File::open(&archive)?),
        packing: Packing::Tar,
    };
    write_layout(&layout, vec![layer])?;
    fs_err::remove_file(archive)?;
    Ok(layout)
}

/// Files and their directories in an archive of so many files.
pub(crate) fn inodes(files: u32) -> u32 {
    files + files.div_ceil(FILES_PER_DIRECTORY)
}

/// Writes the archive; the same numbers give the same bytes. All lies below the directory that these are
/// the names of, from the root on.
pub(crate) fn write<W: std::io::Write>(files: u32, seed: u64, below: &[&str], out: W) -> Result<W> {
    let mut writer = Writer::new(out);
    let mut prefix = String::new();
    for name in below {
        prefix.push_str(name);
        writer.entry(&entry(prefix.as_bytes(), 0o755, EntryKind::Directory))?;
        prefix.push('/');
    }
    for number in 0..files {
        let directory = format!("{prefix}d{:05}", number / FILES_PER_DIRECTORY);
        if number % FILES_PER_DIRECTORY == 0 {
            writer.entry(&entry(directory.as_bytes(), 0o755, EntryKind::Directory))?;
        }
        let content = content(seed, number);
        let kind = EntryKind::File {
            bytes: u64::try_from(content.len())?,
            chunks: Box::default(),
        };
        let path = format!("{directory}/f{number:07}");
        writer.entry(&entry(path.as_bytes(), 0o644, kind))?;
        writer.data(&content)?;
    }
    Ok(writer.finish()?)
}

/// An entry as all of them are.
pub(crate) fn entry(path: &[u8], mode: u16, kind: EntryKind) -> Entry {
    Entry {
        path: path.into(),
        meta: Meta {
            mode,
            mtime: 1_700_000_000,
            ..Meta::default()
        },
        kind,
    }
}

/// What is in a file: its own digest, again and again, for as long as that says.
fn content(seed: u64, number: u32) -> Vec<u8> {
    let name = [&seed.to_le_bytes()[..], &number.to_le_bytes()].concat();
    let digest = Digest::blake3(&name);
    let [first, second, ..] = *digest.as_bytes();
    let span = FILE_BYTES_MAX - FILE_BYTES_MIN;
    let bytes = FILE_BYTES_MIN + u64::from(u16::from_le_bytes([first, second])) % span;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    digest
        .as_bytes()
        .iter()
        .copied()
        .cycle()
        .take(bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn every_file_of_every_seed_is_different_and_stays_small() {
        let mut seen = BTreeSet::new();
        for seed in 0..3 {
            for number in 0..500 {
                let content = content(seed, number);
                assert!((64..1024).contains(&content.len()));
                assert!(seen.insert(content), "{seed} {number}");
            }
        }
    }

    #[test]
    fn tar_lists_what_was_generated() {
        let bytes = write(250, 7, &["usr", "lib"], Vec::new()).unwrap();
        assert_eq!(bytes, write(250, 7, &["usr", "lib"], Vec::new()).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.tar");
        fs_err::write(&path, bytes).unwrap();
        let mut list = Command::new("tar");
        list.arg("-tf").arg(path).stderr(Stdio::inherit());
        let listed = String::from_utf8(list.output().unwrap().stdout).unwrap();
        let listed: Vec<&str> = listed.lines().collect();
        assert_eq!(listed.len(), 255);
        assert_eq!(inodes(250), 253);
        assert_eq!(listed[..3], ["usr/", "usr/lib/", "usr/lib/d00000/"]);
        assert_eq!(listed[254], "usr/lib/d00002/f0000249");
    }
}
