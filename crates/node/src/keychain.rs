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

/// Under which the keeper holds it: under one of two keys, for the keeper keeps the first descriptor of a key, and
/// the next is to be held before the last is let go of. No device and no session has these: theirs are digests of
/// something else.
pub(crate) fn keys() -> [Key; 2] {
    [b"draught keychain 0", b"draught keychain 1"].map(|name| *Digest::sha256(name).as_bytes())
}

/// What an earlier worker wrote; empty if none did or it can't be read. There are two if it died in between.
pub(crate) fn restore(kept: impl IntoIterator<Item = OwnedFd>) -> Keychain {
    let keychain = Keychain::new();
    for fd in kept {
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
    let [mut next, mut last] = keys();
    // Whichever an earlier worker used, both are this one's from now on.
    let mut is_first = true;
    while changes.changed().await.is_ok() {
        let (keychain, link) = (Arc::clone(&keychain), Arc::clone(&link));
        let kept = tokio::task::spawn_blocking(move || {
            if is_first {
                replace(&keychain, &link, last, next)?;
            }
            replace(&keychain, &link, next, last)
        });
        match kept.await {
            Ok(Ok(())) => {
                is_first = false;
                std::mem::swap(&mut next, &mut last);
            }
            Ok(Err(error)) => {
                let error = &*error;
                tracing::warn!(error, "credentials would not outlive this worker");
            }
            Err(error) => tracing::warn!(%error, "credentials would not outlive this worker"),
        }
    }
}

/// Lets the keeper hold what is in the keychain under one key, and then let go of the other.
fn replace(
    keychain: &Keychain,
    link: &Link,
    new: Key,
    old: Key,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let fd = seal(&keychain.to_bytes()?)?;
    link.hold(new, fd.as_fd())?;
    Ok(link.release(&old)?)
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
            let restored = restore([fd.try_clone().unwrap()]);
            assert_eq!(restored.to_bytes().unwrap(), bytes);
        }
        assert!(restore([]).is_empty());
        assert!(restore([seal(b"{").unwrap()]).is_empty());
    }
}
