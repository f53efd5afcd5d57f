//! Layers of the demonstration's image: tar archives of this machine's files, gzip'ed as `docker push` does.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use draught_codec::HashingWriter;
use draught_digest::{Algorithm, Digest};
use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Meta};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::cancel::Cancel;
use super::selection::Selection;

/// The level that docker and most builders use.
const GZIP_LEVEL: u32 = 6;

/// Bytes written to a layer's file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A layer in a file.
#[derive(Debug)]
pub(crate) struct Layer {
    /// For people.
    pub(crate) name: &'static str,
    /// The gzip'ed tar archive.
    pub(crate) file: PathBuf,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) stored_bytes: u64,
    /// Digest of the tar archive.
    pub(crate) diff_id: Digest,
    /// Size of the tar archive in bytes.
    pub(crate) tar_bytes: u64,
    /// How many entries it has.
    pub(crate) entries: u64,
}

type Stored = GzEncoder<HashingWriter<BufWriter<fs_err::File>>>;

/// Writes one layer.
struct LayerWriter {
    tar: Writer<HashingWriter<Stored>>,
    file: PathBuf,
    entries: u64,
}

impl LayerWriter {
    fn create(file: &Path) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, fs_err::File::create(file)?);
        let stored = HashingWriter::new(out, Algorithm::Sha256);
        let gzip = GzEncoder::new(stored, Compression::new(GZIP_LEVEL));
        Ok(Self {
            tar: Writer::new(HashingWriter::new(gzip, Algorithm::Sha256)),
            file: file.to_owned(),
            entries: 0,
        })
    }

    fn finish(self, name: &'static str) -> Result<Layer> {
        let (diff_id, tar_bytes, gzip) = self.tar.finish()?.finish();
        let (digest, stored_bytes, mut out) = gzip.finish()?.finish();
        out.flush()?;
        Ok(Layer {
            name,
            file: self.file,
            digest,
            stored_bytes,
            diff_id,
            tar_bytes,
            entries: self.entries,
        })
    }

    /// An entry without content.
    fn plain(&mut self, path: &str, mode: u16, kind: EntryKind) -> Result<()> {
        let meta = Meta {
            mode,
            ..Meta::default()
        };
        self.entries += 1;
        Ok(self.tar.entry(&Entry {
            path: path.as_bytes().into(),
            meta,
            kind,
        })?)
    }
}

/// Writes the selected files of this machine to a layer in `file`.
pub(crate) fn write(selection: &Selection, file: &Path, cancel: &Cancel) -> Result<Layer> {
    let mut writer = LayerWriter::create(file)?;
    // Inodes with several names, and the first name that this layer has for each.
    let mut linked: HashMap<(u64, u64), Box<[u8]>> = HashMap::new();
    for path in &selection.paths {
        cancel.check()?;
        // A file may be gone since it was chosen: the machine lives on.
        let Ok(stat) = fs_err::symlink_metadata(path) else {
            continue;
        };
        let name: Box<[u8]> = path
            .as_os_str()
            .as_bytes()
            .strip_prefix(b"/")
            .unwrap_or_default()
            .into();
        let mut content = None;
        let kind = if stat.is_dir() {
            EntryKind::Directory
        } else if stat.is_symlink() {
            let target = fs_err::read_link(path)?.into_os_string().into_vec();
            EntryKind::Symlink(target.into())
        } else if let Some(first) = linked.get(&(stat.dev(), stat.ino())) {
            EntryKind::HardLink(first.clone())
        } else {
            let Ok(file) = fs_err::File::open(path) else {
                continue;
            };
            content = Some(file);
            if stat.nlink() > 1 {
                linked.insert((stat.dev(), stat.ino()), name.clone());
            }
            EntryKind::File {
                bytes: stat.len(),
                chunks: Box::default(),
            }
        };
        let entry = Entry {
            path: name,
            meta: meta(&stat),
            kind,
        };
        writer.tar.entry(&entry)?;
        writer.entries += 1;
        if let Some(content) = content {
            let mut whole = content.take(stat.len());
            let copied = io::copy(&mut whole, &mut writer.tar)
                .with_context(|| format!("put {} into the image", path.display()))?;
            // It shrank while it was read; its header is written already.
            io::copy(
                &mut io::repeat(0).take(stat.len() - copied),
                &mut writer.tar,
            )?;
        }
    }
    writer.finish(selection.name)
}

/// The top layer: what a developer would add, and take away.
pub(crate) fn write_top(removed: Option<&Path>, file: &Path) -> Result<Layer> {
    let mut writer = LayerWriter::create(file)?;
    writer.plain("app", 0o755, EntryKind::Directory)?;
    let text = b"Drawn from the cask as it is drunk.\n";
    let kind = EntryKind::File {
        bytes: text.len() as u64,
        chunks: Box::default(),
    };
    writer.plain("app/motto.txt", 0o644, kind)?;
    writer.tar.data(text)?;
    writer.plain(
        "app/latest",
        0o777,
        EntryKind::Symlink(b"motto.txt".as_slice().into()),
    )?;
    let whiteout = removed.and_then(|path| {
        let parent = path.parent()?.strip_prefix("/").ok()?.to_str()?;
        Some(format!("{parent}/.wh.{}", path.file_name()?.to_str()?))
    });
    if let Some(path) = whiteout {
        let kind = EntryKind::File {
            bytes: 0,
            chunks: Box::default(),
        };
        writer.plain(&path, 0o644, kind)?;
    }
    writer.finish("application")
}

fn meta(stat: &std::fs::Metadata) -> Meta {
    Meta {
        mode: u16::try_from(stat.mode() & 0o7777).unwrap_or(0o644),
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: stat.mtime(),
        mtime_nsec: u32::try_from(stat.mtime_nsec()).unwrap_or(0),
        xattrs: Vec::new(),
    }
}
