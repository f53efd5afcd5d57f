//! Blobs on their way: unlinked files, digested while they are written.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use draught_codec::HashingWriter;
use draught_digest::{Algorithm, Digest, Hasher};

/// A file that is being written. It has no name: whatever ends the program frees its space.
#[derive(Debug)]
pub(crate) struct Spool(HashingWriter<File>);

/// A file that is complete.
#[derive(Debug)]
pub struct Spooled {
    digest: Digest,
    bytes: u64,
    file: File,
}

impl Spool {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        Ok(Self(HashingWriter::new(file, Algorithm::Sha256)))
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The state of the digest so far.
    pub(crate) fn hasher(&self) -> Hasher {
        self.0.hasher().clone()
    }

    pub(crate) fn finish(self) -> Spooled {
        let (digest, bytes, file) = self.0.finish();
        Spooled {
            digest,
            bytes,
            file,
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Spooled {
    /// SHA-256 of the content.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Size of the content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, at its start.
    ///
    /// # Errors
    /// If it can't be rewound.
    pub fn into_file(mut self) -> io::Result<File> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.file)
    }
}
