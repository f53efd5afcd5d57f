//! The bootstrap of an image, as a layer of its own.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Read, Write};

use draught_codec::{HashingWriter, PieceKind};
use draught_digest::{Algorithm, Digest};
use draught_rafs::blob::BlobInfo;
use draught_rafs::bootstrap::{self, BLOBS_MAX, Input};
use draught_tar::WriteError as TarWriteError;
use draught_tree::{Entry, EntryKind, Kind, Meta, NodeId, Tree};

use crate::archive::{Compressor, compress};
use crate::layer::PackLayerError;
use crate::options::PackOptions;
use crate::pack::GZIP_LEVEL_DEFAULT;
use crate::spool::{Spool, Spooled};

/// Where in the layer's archive the bootstrap is: where nydus snapshotters look for it.
const PATH: &str = "image/image.boot";

/// Bytes written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A layer with nothing but the bootstrap in it: a tar archive in gzip.
#[derive(Debug)]
pub struct BootstrapLayer {
    /// The layer.
    pub content: Spooled,
    /// The digest of its archive.
    pub diff_id: Digest,
    /// Size of the bootstrap itself, in bytes.
    pub bootstrap_bytes: u64,
    /// Extended attributes that no image can hold and that were left out.
    pub xattrs_left_out: u64,
}

/// Why an image can't be ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// There are more blobs than an image can have.
    #[error(
        "the image consists of {blobs} blobs, {dictionaries} of them of dictionaries; it can have \
         {BLOBS_MAX}: use fewer dictionaries, or such of fewer layers"
    )]
    Blobs {
        /// How many there are.
        blobs: usize,
        /// How many of them are a dictionary's.
        dictionaries: usize,
    },
    /// The tree can't be expressed.
    #[error("failed to write the bootstrap")]
    Bootstrap {
        /// Why.
        source: bootstrap::WriteError,
    },
    /// The layer can't be put together.
    #[error("failed to write the bootstrap's archive")]
    Archive {
        /// Why.
        source: TarWriteError,
    },
    /// The spool directory can't take it.
    #[error("failed to write the bootstrap to the spool directory")]
    Spool {
        /// Why.
        source: io::Error,
    },
}

fn spool_failed(source: io::Error) -> FinishError {
    FinishError::Spool { source }
}

/// The files of a tree that are to be fetched first, each once.
fn prefetched(tree: &Tree, options: &PackOptions) -> Vec<NodeId> {
    let mut seen = BTreeSet::new();
    let nodes = options.prefetch.iter().filter_map(|path| tree.lookup(path));
    let has_content = |node: &NodeId| match &tree.node(*node).kind {
        Kind::File { chunks, .. } => !chunks.is_empty(),
        _ => false,
    };
    nodes
        .filter(has_content)
        .filter(|node| seen.insert(*node))
        .collect()
}

/// What a bootstrap is written from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contents<'a> {
    pub(crate) tree: &'a Tree,
    /// What is known of each blob of the tree's map.
    pub(crate) blobs: &'a [BlobInfo],
    /// For every chunk of the tree's map, its index in the chunk-info table of its blob.
    pub(crate) chunk_indexes: &'a [u32],
}

/// Writes a bootstrap.
fn write_to(
    contents: Contents<'_>,
    prefetch: &[NodeId],
    options: &PackOptions,
    out: &mut impl Write,
) -> Result<bootstrap::Summary, bootstrap::WriteError> {
    let Contents {
        tree,
        blobs,
        chunk_indexes,
    } = contents;
    let input = Input {
        tree,
        blobs,
        chunk_indexes,
        prefetch,
    };
    let options = bootstrap::Options {
        chunk_bytes: options.chunk_bytes,
        compression: options.compression,
        digester: options.digester,
    };
    bootstrap::write(&input, &options, out)
}

/// The bootstrap of a layer, in memory: its blob needs it whole.
pub(crate) fn write_raw(
    contents: Contents<'_>,
    options: &PackOptions,
) -> Result<Vec<u8>, bootstrap::WriteError> {
    let mut out = Vec::new();
    write_to(contents, &[], options, &mut out)?;
    Ok(out)
}

/// Writes the bootstrap of an image, and puts it into a layer.
pub(crate) fn write(
    contents: Contents<'_>,
    options: &PackOptions,
) -> Result<BootstrapLayer, FinishError> {
    // Through a file: tar states a size before the content, and bootstraps of large images are large.
    let raw = Spool::new(&options.spool_dir).map_err(spool_failed)?;
    let mut raw = BufWriter::with_capacity(BUFFER_BYTES, raw);
    let prefetch = prefetched(contents.tree, options);
    let summary = write_to(contents, &prefetch, options, &mut raw)
        .map_err(|source| FinishError::Bootstrap { source })?;
    let raw = raw
        .into_inner()
        .map_err(|error| spool_failed(error.into_error()))?;
    let raw = raw.finish();
    let bootstrap_bytes = raw.bytes();
    let gzip = PieceKind::Gzip {
        level: GZIP_LEVEL_DEFAULT,
    };
    let archive = |out: &mut Compressor| {
        let archive = HashingWriter::new(out, Algorithm::Sha256);
        let archive = wrap(raw, archive).map_err(|error| match error {
            Wrap::Archive(source) => PackLayerError::Archive { source },
            Wrap::Spool(source) => PackLayerError::Spool { source },
        })?;
        Ok(archive.finish().0)
    };
    let compressed = compress(gzip, options.threads, &options.spool_dir, archive);
    let (diff_id, content) = compressed.map_err(|error| match error {
        PackLayerError::Archive { source } => FinishError::Archive { source },
        PackLayerError::Spool { source } => spool_failed(source),
        error => spool_failed(io::Error::other(error)),
    })?;
    Ok(BootstrapLayer {
        content,
        diff_id,
        bootstrap_bytes,
        xattrs_left_out: summary.xattrs_left_out,
    })
}

/// Why a bootstrap can't be put into an archive: that can't be written, or the bootstrap can't be read.
enum Wrap {
    Archive(TarWriteError),
    Spool(io::Error),
}

/// Puts the bootstrap into an archive.
fn wrap<W: Write>(raw: Spooled, out: W) -> Result<W, Wrap> {
    let archive_failed = Wrap::Archive;
    let spool_failed = Wrap::Spool;
    let mut writer = draught_tar::Writer::new(out);
    let (directory, _) = PATH.split_once('/').unwrap_or((PATH, ""));
    writer
        .entry(&entry(directory, 0o755, EntryKind::Directory))
        .map_err(archive_failed)?;
    let file = EntryKind::File {
        bytes: raw.bytes(),
        chunks: Box::default(),
    };
    writer
        .entry(&entry(PATH, 0o444, file))
        .map_err(archive_failed)?;
    let mut raw = raw.into_file().map_err(spool_failed)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = raw.read(&mut buffer).map_err(spool_failed)?;
        if read == 0 {
            break;
        }
        writer
            .data(buffer.get(..read).unwrap_or_default())
            .map_err(archive_failed)?;
    }
    writer.finish().map_err(archive_failed)
}

fn entry(path: &str, mode: u16, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().into(),
        meta: Meta {
            mode,
            ..Meta::default()
        },
        kind,
    }
}
