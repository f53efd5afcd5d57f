//! The layers of conversions that ended before their time.
//!
//! A file for each layer whose blob is where it belongs, written when it came there. The next conversion of
//! the same image to the same place goes on from there; once an image is complete, its files are deleted.
//! They are believed: the directory belongs to the user, and nobody else can write it.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use draught_digest::Digest;
use draught_oci::Manifest;
use draught_source::{BlobBackend, SourceError};
use futures_util::future::BoxFuture;

use super::backend::{BuildCache, CacheError, CacheHit, CachedLayer};
use super::document::cached_layer;
use super::key::CacheKey;
use crate::blocking::blocking;

/// How long a layer is remembered that nobody asked for.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Bytes of a record that is read.
const ENTRY_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a digest at the start of each file, of all that follows it.
const DIGEST_BYTES: usize = 32;

/// A directory of layers, for conversions to one place.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    blobs: Arc<dyn BlobBackend>,
    /// What this conversion wrote or used.
    touched: Mutex<BTreeSet<CacheKey>>,
}

impl Journal {
    /// Opens the journal for conversions whose blobs go to `blobs`; makes the directory if it isn't there.
    pub(crate) async fn open(dir: &Path, blobs: Arc<dyn BlobBackend>) -> io::Result<Self> {
        // Whether a blob is there is known of one place only.
        let place = Digest::sha256(blobs.label().as_bytes());
        let (root, dir) = (dir.to_owned(), dir.join(place.hex()));
        let dir = blocking(move || {
            make(&root)?;
            check_owner(&root)?;
            forget_old(&root)?;
            Ok::<_, io::Error>(dir)
        })
        .await?;
        Ok(Self {
            dir,
            blobs,
            touched: Mutex::default(),
        })
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.dir.join(key.to_string().replace(':', "-"))
    }

    fn touch(&self, key: &CacheKey) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.insert(*key);
    }
}

/// Makes a directory that nobody else can look into, if it isn't there.
fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes sure that nobody else can have written what is believed.
fn check_owner(dir: &Path) -> io::Result<()> {
    let meta = fs_err::symlink_metadata(dir)?;
    let is_ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
    if !is_ours {
        let message = format!("{} is not a directory of this user", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if meta.mode() & 0o022 != 0 {
        let message = format!(
            "others can write {}, so what is in it is not believed: delete it, it is made anew",
            dir.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Deletes what nobody asked for in a long time, in all places.
fn forget_old(root: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for place in fs_err::read_dir(root)? {
        let place = place?.path();
        if !place.is_dir() {
            continue;
        }
        for entry in fs_err::read_dir(&place)? {
            let entry = entry?;
            let Ok(changed) = entry.metadata().and_then(|meta| meta.modified()) else {
                // Gone meanwhile.
                continue;
            };
            if now.duration_since(changed).is_ok_and(|age| age > KEPT) {
                drop(fs_err::remove_file(entry.path()));
            }
        }
        // Succeeds if nothing is left in it.
        drop(std::fs::remove_dir(&place));
    }
    Ok(())
}

/// A layer as the file has it: what it became, a line, and its record; before that the digest of both.
fn encode(layer: &CachedLayer, record: &[u8]) -> Vec<u8> {
    let blob = match &layer.blob {
        Some(blob) => format!("{} {}\n", blob.digest, blob.size),
        None => "none\n".to_owned(),
    };
    let body = [blob.as_bytes(), record].concat();
    [Digest::sha256(&body).as_bytes(), body.as_slice()].concat()
}

fn decode(key: CacheKey, bytes: &[u8]) -> Option<CacheHit> {
    let (digest, body) = bytes.split_at_checked(DIGEST_BYTES)?;
    if Digest::sha256(body).as_bytes() != digest {
        return None;
    }
    let end = body.iter().position(|byte| *byte == b'\n')?;
    let (line, record) = body.split_at_checked(end)?;
    let record = record.get(1..)?;
    let blob = match std::str::from_utf8(line).ok()? {
        "none" => None,
        line => {
            let (digest, bytes) = line.split_once(' ')?;
            Some((digest.parse().ok()?, bytes.parse().ok()?))
        }
    };
    Some(CacheHit {
        layer: cached_layer(key, record, blob),
        record: record.to_vec(),
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs_err::metadata(path)?.len() > ENTRY_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs_err::read(path)
}

impl BuildCache for Journal {
    fn label(&self) -> String {
        format!("journal {}", self.dir.display())
    }

    fn blobs(&self) -> &dyn BlobBackend {
        &*self.blobs
    }

    fn get<'a>(&'a self, key: &'a CacheKey) -> BoxFuture<'a, Result<Option<CacheHit>, CacheError>> {
        Box::pin(async move {
            let path = self.path(key);
            let found = blocking(move || read(&path).ok()).await;
            let Some(hit) = found.and_then(|bytes| decode(*key, &bytes)) else {
                return Ok(None);
            };
            if let Some(blob) = &hit.layer.blob {
                let has = self.blobs.has_blob(&blob.digest).await;
                let has = has.map_err(|source| CacheError::Read {
                    what: format!("blob {}", blob.digest),
                    source,
                })?;
                if !has {
                    return Ok(None);
                }
            }
            self.touch(key);
            Ok(Some(hit))
        })
    }

    fn put<'a>(
        &'a self,
        layer: &'a CachedLayer,
        record: &'a [u8],
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            let (dir, path) = (self.dir.clone(), self.path(&layer.key));
            let bytes = encode(layer, record);
            let written = blocking(move || {
                // Another conversion may have found it empty and deleted it.
                make(&dir)?;
                let mut file = tempfile::NamedTempFile::new_in(&dir)?;
                file.write_all(&bytes)?;
                file.persist(path).map_err(|error| error.error)?;
                Ok(())
            });
            written.await.map_err(|source| CacheError::Write {
                what: "the journal".to_owned(),
                source: SourceError::Io { source },
            })?;
            self.touch(&layer.key);
            Ok(())
        })
    }

    fn finish_image<'a>(
        &'a self,
        _: &'a [CachedLayer],
        _: &'a mut Manifest,
    ) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async { Ok(()) })
    }

    /// Forgets what this conversion did: it is complete.
    fn commit(&self) -> BoxFuture<'_, Result<usize, CacheError>> {
        Box::pin(async move {
            let touched = {
                let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *touched)
            };
            let paths: Vec<PathBuf> = touched.iter().map(|key| self.path(key)).collect();
            let dir = self.dir.clone();
            blocking(move || {
                for path in paths {
                    // Another conversion may have done it.
                    drop(fs_err::remove_file(path));
                }
                // Succeeds if nothing is left in it; so does the next one.
                drop(std::fs::remove_dir(&dir));
                if let Some(root) = dir.parent() {
                    drop(std::fs::remove_dir(root));
                }
            })
            .await;
            Ok(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        make(&journal).unwrap();
        check_owner(&journal).unwrap();
        assert_eq!(journal.metadata().unwrap().mode() & 0o7777, 0o700);
        for mode in [0o720, 0o702] {
            let mode = std::fs::Permissions::from_mode(mode);
            fs_err::set_permissions(&journal, mode).unwrap();
            let error = check_owner(&journal).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        let file = dir.path().join("file");
        fs_err::write(&file, b"").unwrap();
        check_owner(&file).unwrap_err();
        let link = dir.path().join("link");
        fs_err::os::unix::fs::symlink(dir.path(), &link).unwrap();
        check_owner(&link).unwrap_err();
    }

    #[test]
    fn what_is_not_whole_is_not_there() {
        let key: CacheKey = Digest::sha256(b"key").to_string().parse().unwrap();
        for blob in [None, Some((Digest::sha256(b"blob"), 7))] {
            let layer = cached_layer(key, b"record\nof two lines", blob);
            let bytes = encode(&layer, b"record\nof two lines");
            let hit = decode(key, &bytes).unwrap();
            assert_eq!(hit.layer, layer);
            assert_eq!(hit.record, b"record\nof two lines");
            for end in 0..bytes.len() {
                assert_eq!(decode(key, &bytes[..end]), None);
            }
            let mut other = bytes;
            *other.last_mut().unwrap() ^= 1;
            assert_eq!(decode(key, &other), None);
        }
    }
}
