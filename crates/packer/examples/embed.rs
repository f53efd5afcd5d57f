//! What a build tool does that embeds the packer: layers are handed over as readers, blobs go to a place
//! of its own, and the descriptors for the image's manifest come back.
//!
//! `embed DIR LAYER...` packs layers (tar files, compressed or not), lowest first, and keeps the blobs in
//! DIR, which is made. With a second run of the same layers nothing is written again.

use fs_err::File;
use fs_err::os::unix::fs::FileExt as _;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_packer::{BlobBackend, Layer, Output, Packer, StreamLayer};
use draught_source::{BlobStream, Payload, Pushed, Source, SourceError};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Blobs as files of a directory.
#[derive(Debug)]
struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    fn read(path: &Path, range: &Range<u64>) -> io::Result<Bytes> {
        let bytes = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut buffer = vec![0; bytes];
        File::open(path)?.read_exact_at(&mut buffer, range.start)?;
        Ok(buffer.into())
    }
}

impl Source for Shelf {
    fn label(&self) -> String {
        self.dir.display().to_string()
    }

    fn read_range<'a>(
        &'a self,
        blob: &'a Digest,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(async move { Ok(Self::read(&self.path(blob), &range)?) })
    }
}

impl BlobBackend for Shelf {
    fn has_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, SourceError>> {
        Box::pin(async move { Ok(self.path(digest).try_exists()?) })
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        Box::pin(async move {
            let (path, size) = (self.path(&descriptor.digest), descriptor.size);
            let starts = (0..size).step_by(usize::try_from(PIECE_BYTES).unwrap_or(1));
            let pieces = starts.map(move |start| {
                let range = start..size.min(start + PIECE_BYTES);
                Self::read(&path, &range).map_err(SourceError::from)
            });
            Ok(BlobStream::new(
                descriptor.digest,
                size,
                stream::iter(pieces).boxed(),
            ))
        })
    }

    fn put_blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        payload: &'a Payload,
    ) -> BoxFuture<'a, Result<Pushed, SourceError>> {
        Box::pin(async move {
            let path = self.path(&descriptor.digest);
            if path.try_exists()? {
                return Ok(Pushed::Existed);
            }
            // Under its name it is whole, or not at all.
            let new = path.with_extension("new");
            match payload {
                Payload::Bytes(bytes) => fs_err::write(&new, bytes)?,
                Payload::File(from) | Payload::Spooled(from) => drop(fs_err::copy(from, &new)?),
            }
            fs_err::rename(new, path)?;
            Ok(Pushed::Written)
        })
    }
}

/// How it is called.
#[derive(Debug)]
struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("embed DIR LAYER...")
    }
}

impl std::error::Error for Usage {}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program for people")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let dir = args.next().ok_or(Usage)?;
    fs_err::create_dir_all(&dir)?;
    let layers = args.map(|path| {
        let layer = StreamLayer::new(File::open(path)?);
        io::Result::Ok(Arc::new(layer) as Arc<dyn Layer>)
    });
    let layers: Vec<_> = layers.collect::<Result<_, _>>()?;
    let mut packer = Packer::new(Output::default(), Arc::new(Shelf { dir }))?;
    let packed = packer.pack(&layers).await?;
    packer.flush().await?;
    for layer in packed.layers {
        let Descriptor {
            media_type,
            digest,
            size,
            ..
        } = layer.descriptor;
        println!("{digest} {size} {media_type}");
    }
    Ok(())
}
