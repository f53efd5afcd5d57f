//! How credentials that were handed over outlive a worker: the keeper holds them, in memory that has no name.
//!
//! They are written into a memfd and sealed: it can be read by who has its descriptor, and changed by nobody. The
//! keeper holds the descriptor beside those of devices, and knows nothing of what it is. Nothing is on a disk, and when the
//! keeper ends nothing is left.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use draught_digest::Digest;
use draught_source::Keychain;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::handover::Key;
use crate::link::Link;

/// Bytes read of what an earlier worker wrote; twice what a keychain can have.
const BYTES_MAX: u64 = 256 << 20;

/// Under which the keeper holds it. No device and no session has it: theirs are digests of something else.
pub(crate) fn key() -> Key {
    *Digest::sha256(b"draught keychain").as_bytes()
}

/// What an earlier worker wrote; empty if none did or it can't be read.
pub(crate) fn restore(kept: Option<OwnedFd>) -> Keychain {
    let keychain = Keychain::new();
    if let Some(fd) = kept {
        let read = read(fd).map_err(Box::<dyn std::error::Error>::from);
        let added = read.and_then(|bytes| Ok(keychain.add_bytes(&bytes)?));
        match added {
            Ok(()) => tracing::info!(count = keychain.len(), "credentials were taken over"),
            Err(error) => tracing::error!(error, "credentials that were handed over are lost"),
        }
    }
    keychain
}

fn read(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    let length = file.metadata()?.len();
    if length > BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // At its place: the keeper's descriptor has the same offset.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Writes bytes into memory that nobody can change any more.
fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("draught-keychain", flags)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Gives the keeper what is in the keychain now, and again whenever it changes.
pub(crate) async fn keep(keychain: Arc<Keychain>, link: Arc<Link>) {
    let mut changes = keychain.changes();
    if !keychain.is_empty() {
        changes.mark_changed();
    }
    while changes.changed().await.is_ok() {
        let (keychain, link) = (Arc::clone(&keychain), Arc::clone(&link));
        let kept = tokio::task::spawn_blocking(move || hold(&keychain, &link)).await;
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = &*error;
                tracing::warn!(error, "credentials would not outlive this worker");
            }
            Err(error) => tracing::warn!(%error, "credentials would not outlive this worker"),
        }
    }
}

fn hold(keychain: &Keychain, link: &Link) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let fd = seal(&keychain.to_bytes()?)?;
    Ok(link.hold(key(), fd.as_fd())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use draught_source::{Credential, Secret};

    #[test]
    fn what_is_sealed_is_restored_and_can_not_be_changed() {
        let keychain = Keychain::new();
        let image = "r.example/app:1".parse().unwrap();
        let token = Credential::RegistryToken(Secret::new("t"));
        keychain.hand_over(&image, None, token, None);
        let bytes = keychain.to_bytes().unwrap();
        let fd = seal(&bytes).unwrap();
        let mut file = File::from(fd.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        // Twice: each worker gets a copy.
        for _ in 0..2 {
            let restored = restore(Some(fd.try_clone().unwrap()));
            assert_eq!(restored.to_bytes().unwrap(), bytes);
        }
        assert!(restore(None).is_empty());
        assert!(restore(Some(seal(b"{").unwrap())).is_empty());
    }
}
