//! Uploads under way: a file each, and the digest of what it holds so far.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use draught_digest::{Algorithm, Digest, Hasher};
use tempfile::NamedTempFile;

use crate::Options;
use crate::names::RepositoryName;

/// Random letters in an upload's name: nobody guesses 32.
const ID_LETTERS: usize = 32;

/// The bytes of one upload.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Nothing once the upload has become a blob or can no longer become one.
    file: Option<NamedTempFile>,
    hasher: Hasher,
    bytes: u64,
}

impl Upload {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds to the end.
    ///
    /// A failed write ends the upload: nobody knows how much of it arrived.
    pub(crate) fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let mut file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        for piece in pieces {
            file.write_all(piece)?;
            self.hasher.update(piece);
            self.bytes += u64::try_from(piece.len()).map_err(io::Error::other)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Ends the upload: its file and the digest of its bytes, or nothing if it has ended before.
    pub(crate) fn finish(&mut self) -> Option<(NamedTempFile, Digest)> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        Some((self.file.take()?, hasher.finish()))
    }

    /// Whether it can still take bytes.
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }
}

#[derive(Debug)]
struct Session {
    repository: RepositoryName,
    touched: Instant,
    upload: Arc<tokio::sync::Mutex<Upload>>,
}

/// All uploads under way.
#[derive(Debug)]
pub(crate) struct Uploads {
    dir: PathBuf,
    count_max: usize,
    idle: Duration,
    sessions: Mutex<HashMap<String, Session>>,
}

/// Why no upload can begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{count} uploads are under way already; try again later")]
    TooMany { count: usize },
    #[error("no file can be made for the upload")]
    Io { source: io::Error },
}

impl Uploads {
    pub(crate) fn new(dir: PathBuf, options: &Options) -> Self {
        Self {
            dir,
            count_max: options.uploads_max,
            idle: options.upload_idle,
            sessions: Mutex::default(),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An upload that no session knows: for a push in a single request.
    pub(crate) fn anonymous(&self) -> io::Result<Upload> {
        let file = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(ID_LETTERS)
            .tempfile_in(&self.dir)?;
        Ok(Upload {
            file: Some(file),
            hasher: Hasher::new(Algorithm::Sha256),
            bytes: 0,
        })
    }

    /// Begins an upload and returns its name.
    pub(crate) fn start(&self, repository: &RepositoryName) -> Result<String, StartError> {
        let mut sessions = self.sessions();
        if sessions.len() >= self.count_max {
            sessions.retain(|_, session| session.touched.elapsed() < self.idle);
        }
        if sessions.len() >= self.count_max {
            return Err(StartError::TooMany {
                count: sessions.len(),
            });
        }
        let upload = self
            .anonymous()
            .map_err(|source| StartError::Io { source })?;
        let id = upload
            .file
            .as_ref()
            .and_then(|file| file.path().file_name()?.to_str())
            .unwrap_or_default()
            .to_owned();
        let session = Session {
            repository: repository.clone(),
            touched: Instant::now(),
            upload: Arc::new(tokio::sync::Mutex::new(upload)),
        };
        sessions.insert(id.clone(), session);
        Ok(id)
    }

    /// The upload `id` of this repository.
    pub(crate) fn find(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Option<Arc<tokio::sync::Mutex<Upload>>> {
        let mut sessions = self.sessions();
        let session = sessions.get_mut(id)?;
        if session.repository != *repository {
            return None;
        }
        session.touched = Instant::now();
        Some(Arc::clone(&session.upload))
    }

    /// Forgets an upload; its file goes when the last request that uses it ends.
    pub(crate) fn forget(&self, id: &str) {
        let session = self.sessions().remove(id);
        drop(session);
    }
}
