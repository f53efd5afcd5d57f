//! An archive that is generated while it is packed: its size is limited by nothing.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use draught_packer::{ImagePacker, LayerInput, PackOptions};
use draught_tar::Writer;
use draught_tree::EntryKind;
use serde_json::json;

use crate::bench::suite::generated::entry;

/// Files in one directory.
const FILES_PER_DIRECTORY: u64 = 100;

/// Bytes that are generated at once, each time others.
const PIECE_BYTES: usize = 4096;

/// Bytes of the line that most of a piece repeats.
const LINE_BYTES: usize = 256;

/// Generates an archive and packs it
#[derive(Debug, Clone, Parser)]
pub(crate) struct Args {
    /// Files
    #[arg(long)]
    files: u64,
    /// Bytes of each
    #[arg(long)]
    bytes: u64,
    /// Where the packed blob lies meanwhile
    #[arg(long)]
    scratch: PathBuf,
    /// Generate and do nothing with it
    #[arg(long)]
    only_generate: bool,
}

impl Args {
    /// Does it, and prints the size of the result.
    pub(crate) fn run(&self) -> Result<()> {
        let (mut reader, writer) = io::pipe()?;
        let stored_bytes = thread::scope(|scope| {
            let generating = scope.spawn(|| generate(self.files, self.bytes, writer));
            let stored_bytes = if self.only_generate {
                io::copy(&mut reader, &mut io::sink()).map(|_| 0)?
            } else {
                self.pack(reader)?
            };
            let generated = generating.join();
            generated.map_err(|_panic| anyhow!("generate the archive: it panicked"))??;
            anyhow::Ok(stored_bytes)
        })?;
        let said = json!({"stored_bytes": stored_bytes});
        writeln!(io::stdout(), "{said}")?;
        Ok(())
    }

    fn pack(&self, reader: PipeReader) -> Result<u64> {
        let mut packer = ImagePacker::new(PackOptions {
            spool_dir: self.scratch.clone(),
            ..PackOptions::default()
        })?;
        let (_, blob) = packer.add_layer(LayerInput::new(reader), &())?;
        let blob = blob.context("find the blob of the layer")?;
        let image = packer.finish()?;
        Ok(blob.content.bytes() + image.bootstrap.content.bytes())
    }
}

/// Writes the archive.
fn generate(files: u64, bytes: u64, out: PipeWriter) -> Result<()> {
    // Not larger than a pipe: more would wait to be copied again.
    let out = io::BufWriter::with_capacity(64 << 10, out);
    write(files, bytes, out).map(drop)
}

fn write<W: io::Write>(files: u64, bytes: u64, out: W) -> Result<W> {
    let mut writer = Writer::new(out);
    let mut pieces = Pieces::new();
    for number in 0..files {
        let directory = format!("d{:06}", number / FILES_PER_DIRECTORY);
        if number % FILES_PER_DIRECTORY == 0 {
            writer.entry(&entry(directory.as_bytes(), 0o755, EntryKind::Directory))?;
        }
        let kind = EntryKind::File {
            bytes,
            chunks: Box::default(),
        };
        let path = format!("{directory}/f{number:08}");
        writer.entry(&entry(path.as_bytes(), 0o644, kind))?;
        let mut left = bytes;
        while left > 0 {
            let piece = pieces.next();
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let piece = piece.get(..most).unwrap_or(piece);
            writer.data(piece)?;
            left -= piece.len() as u64;
        }
    }
    Ok(writer.finish()?)
}

/// Content that never repeats from one piece to the next, and compresses to about a third as what is in
/// images does: a quarter is noise, the rest a line of letters again and again.
struct Pieces {
    state: u64,
    piece: [u8; PIECE_BYTES],
}

impl Pieces {
    fn new() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            piece: [0; PIECE_BYTES],
        }
    }

    /// Xorshift, which is fast and random enough for no chunk to come twice.
    fn word(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn next(&mut self) -> &[u8] {
        let mut line = [0; LINE_BYTES];
        for letters in line.chunks_exact_mut(8) {
            let word = self.word() & 0x0f0f_0f0f_0f0f_0f0f;
            letters.copy_from_slice(&(word + 0x6161_6161_6161_6161).to_le_bytes());
        }
        let mut piece = self.piece;
        let (noise, text) = piece.split_at_mut(PIECE_BYTES / 4);
        for bytes in noise.chunks_exact_mut(8) {
            bytes.copy_from_slice(&self.word().to_le_bytes());
        }
        for bytes in text.chunks_exact_mut(LINE_BYTES) {
            bytes.copy_from_slice(&line);
        }
        self.piece = piece;
        &self.piece
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pieces_are_all_different_and_compress_to_about_a_third() {
        let mut pieces = Pieces::new();
        let mut seen = BTreeSet::new();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..1000 {
            let piece = pieces.next();
            assert!(seen.insert(piece.to_vec()));
            encoder.write_all(piece).unwrap();
        }
        let bytes = encoder.finish().unwrap().len();
        assert!((1_000_000..1_600_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_archive_has_files_of_the_size_that_was_asked_for() {
        let bytes = write(150, 5000, Vec::new()).unwrap();
        let mut archive = Vec::new();
        archive.extend_from_slice(&bytes);
        // 152 headers, 150 files of ten blocks, and an end.
        assert!(archive.len() >= 512 * (152 + 150 * 10));
        assert_eq!(bytes, write(150, 5000, Vec::new()).unwrap());
    }

    #[test]
    fn what_is_generated_can_be_packed() {
        let dir = tempfile::tempdir().unwrap();
        let args = Args {
            files: 250,
            bytes: 4096,
            scratch: dir.path().to_owned(),
            only_generate: false,
        };
        let (reader, writer) = io::pipe().unwrap();
        let generating = thread::spawn(|| generate(250, 4096, writer));
        let stored = args.pack(reader).unwrap();
        generating.join().unwrap().unwrap();
        assert!((250_000..600_000).contains(&stored), "{stored}");
    }
}
