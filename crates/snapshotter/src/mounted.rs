//! Images that snapshots stand on, each mounted once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use draught_digest::Digest;
use draught_node::{MountRequest, Node};
use parking_lot::Mutex;

use crate::core::device_of;
use crate::images::{Images, origin};
use crate::record::Lazy;
use crate::stack::Needed;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mounted {
    node: Node,
    dir: PathBuf,
    /// The device of each, to see whether it is still there; the lock of each is held while it is mounted or removed.
    known: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Option<u64>>>>>,
}

impl Mounted {
    pub(crate) fn new(node: Node, dir: PathBuf) -> Self {
        Self {
            node,
            dir,
            known: Mutex::default(),
        }
    }

    fn dir_of(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    fn slot(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<Option<u64>>> {
        Arc::clone(self.known.lock().entry(*digest).or_default())
    }

    /// Whether this process knows an image to be mounted, and nobody is about to change that.
    pub(crate) fn is_known(&self, digest: &Digest) -> bool {
        let known = self.known.lock();
        let slot = known.get(digest).map(|slot| slot.try_lock());
        slot.is_some_and(|device| device.is_ok_and(|device| device.is_some()))
    }

    /// The directory on which an image is mounted; mounts it if it is not. Says why, if it can't be.
    pub(crate) async fn get(&self, needed: &Needed, images: &Images) -> Result<PathBuf, String> {
        let dir = self.dir_of(&needed.digest);
        let slot = self.slot(&needed.digest);
        let mut device = slot.lock().await;
        if device.is_some() && device_of(&dir) == *device {
            return Ok(dir);
        }
        *device = None;
        if !self.node.is_served(dir.clone()).await {
            self.mount(needed, &dir, images).await?;
        }
        *device = device_of(&dir);
        Ok(dir)
    }

    async fn mount(&self, needed: &Needed, dir: &PathBuf, images: &Images) -> Result<(), String> {
        let top = &needed.top;
        fs_err::create_dir_all(dir).map_err(|error| error.to_string())?;
        let mut fetched = None;
        if !self.node.is_kept(needed.digest).await {
            // Evicted, or lost, or never asked for like this: from the image that has all of it.
            let again = self.node.fetch(origin(&top.reference)).await;
            let again = again.map_err(|error| error.to_string())?;
            let kept = images.keep(&again, needed.content.clone(), needed.digest);
            kept.await.map_err(|(_, why)| why)?;
            fetched = Some(again);
        }
        let request = MountRequest {
            origin: origin(&top.reference),
            dir: dir.clone(),
            prefetch_all: false,
            transport: None,
        };
        let mounted = self
            .node
            .mount_kept(needed.digest, request, fetched.as_ref())
            .await;
        let status = mounted.map_err(|error| error.to_string())?;
        tracing::info!(
            image = top.reference,
            digest = status.digest,
            dir = %dir.display(),
            transport = status.transport,
            fetches = if status.prefetch_all { "all at once" } else { "on demand" },
            "an image is mounted"
        );
        Ok(())
    }

    /// Unmounts an image and removes it from the store, unless somebody wants it; says whether it is gone.
    pub(crate) async fn forget(
        &self,
        digest: &Digest,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> bool {
        let slot = self.slot(digest);
        let mut device = slot.lock().await;
        // Whoever wants it from now on waits for us.
        if is_wanted() {
            return false;
        }
        *device = None;
        let dir = self.dir_of(digest);
        if self.node.is_served(dir.clone()).await
            && let Err(error) = self.node.unmount(dir.clone()).await
        {
            tracing::warn!(%error, dir = %dir.display(), "an image stays mounted for now");
            return false;
        }
        if let Err(error) = self.node.forget(*digest).await {
            tracing::debug!(%error, %digest, "an image stays in the store for now");
            return false;
        }
        let _not_empty_or_gone = fs_err::remove_dir(&dir);
        drop(device);
        let mut known = self.known.lock();
        // Ours and the table's: nobody waits for it.
        if Arc::strong_count(&slot) <= 2 {
            known.remove(digest);
        }
        true
    }

    /// Bytes of a lazy layer that are on this node.
    pub(crate) fn bytes_present(&self, lazy: &Lazy) -> u64 {
        let dir = self.dir_of(&lazy.image);
        let present = self.node.blob_bytes_present(&dir, &lazy.blob);
        present.unwrap_or(0)
    }
}
