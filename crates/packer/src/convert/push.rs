//! Blobs on their way to the destination, while the next layer is packed.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::{Any, Descriptor};
use draught_source::{Payload, Pushed, Repository};
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::error::ConvertError;
use crate::cache::{CacheReport, Caches, mountable};
use crate::progress::Progress;
use crate::spool::Spooled;

/// Blobs that are sent at once. Two keep a connection busy while another waits for the registry to
/// commit; the spool directory needs room for so many and the one that is being packed.
const PUSHES: usize = 2;

/// Where a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Targets {
    Destination,
    Caches,
    Both,
}

/// Sends blobs to a repository. When it is dropped, what is under way ends.
pub(super) struct Pusher {
    to: Repository,
    /// Repositories of the same registry that may have a blob already.
    mount_from: Vec<String>,
    progress: Arc<dyn Progress>,
    pushes: JoinSet<Result<(), ConvertError>>,
    pushes_max: usize,
    caches: Arc<Caches>,
    /// Blobs of cached layers that are in the destination, or on their way.
    secured: BTreeSet<Digest>,
}

impl Pusher {
    pub(super) fn new(
        to: Repository,
        from: Option<&Repository>,
        caches: Caches,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let mount_from = from.map(|from| mountable(from, &to)).unwrap_or_default();
        let pushes_max = match &to {
            // One after the other: their order is that of the layers, and the file's bytes always the same.
            Repository::Archive(_) => 1,
            Repository::Registry(_) | Repository::Layout(_) => PUSHES,
        };
        Self {
            to,
            pushes_max,
            mount_from,
            progress,
            pushes: JoinSet::new(),
            caches: Arc::new(caches),
            secured: BTreeSet::new(),
        }
    }

    /// The build caches of the conversion.
    pub(super) fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// Who is told what happens.
    pub(super) fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    /// Ends with the caches: the image is complete, and has its tag.
    pub(super) async fn commit_caches(&self) -> Option<CacheReport> {
        self.caches.commit().await;
        self.caches.report()
    }

    /// Sends a blob in the background; waits for an earlier one if there are many.
    pub(super) async fn push_file(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
    ) -> Result<(), ConvertError> {
        self.send(descriptor, content, Targets::Destination).await
    }

    /// The same for the blob of a layer, which goes to the caches too.
    pub(super) async fn push_layer(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
    ) -> Result<(), ConvertError> {
        self.send(descriptor, content, Targets::Both).await
    }

    async fn send(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
        targets: Targets,
    ) -> Result<(), ConvertError> {
        while self.pushes.len() >= self.pushes_max {
            self.next().await?;
        }
        let file = content
            .into_file()
            .map_err(|source| ConvertError::Spool { source })?;
        // The file has no name any more; as long as it is open, this is one.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let (to, progress) = (self.to.clone(), Arc::clone(&self.progress));
        let caches = Arc::clone(&self.caches);
        self.pushes.spawn(async move {
            let payload = Payload::File(path);
            if targets != Targets::Caches {
                push(&to, &descriptor, payload.clone(), &*progress).await?;
            }
            if targets != Targets::Destination {
                push_to_caches(&caches, &to, &descriptor, &payload).await;
            }
            drop(file);
            Ok(())
        });
        Ok(())
    }

    /// Makes the blob of a layer that cache `at` has be in the destination and in all caches. `false` when it
    /// can't be had any more: then the layer is not whole.
    pub(super) async fn secure(
        &mut self,
        blob: &Descriptor,
        at: usize,
        spool_dir: &Path,
    ) -> Result<bool, ConvertError> {
        if self.secured.contains(&blob.digest) {
            return Ok(true);
        }
        let caches = Arc::clone(&self.caches);
        let Some(from) = caches.blobs(at) else {
            return Ok(false);
        };
        let is_there = self.is_there(blob, &mountable(from, &self.to)).await?;
        let targets = match is_there {
            false => Targets::Both,
            true if caches.lack(&self.to, blob).await => Targets::Caches,
            true => {
                self.secured.insert(blob.digest);
                return Ok(true);
            }
        };
        let mut content = super::image::spool_blob(from, blob, spool_dir).await;
        if is_there && content.is_err() {
            content = super::image::spool_blob(&self.to, blob, spool_dir).await;
        }
        match content {
            Ok(content) => self.send(blob.clone(), content, targets).await?,
            Err(error) if is_there => caches.can_not_have(blob, &error),
            Err(error) => {
                caches.failed(at, &error);
                return Ok(false);
            }
        }
        self.secured.insert(blob.digest);
        Ok(true)
    }

    /// Whether the destination has a blob; it has it by a mount if it can.
    async fn is_there(
        &self,
        blob: &Descriptor,
        mount_from: &[String],
    ) -> Result<bool, ConvertError> {
        let digest = &blob.digest;
        let is_there = async {
            if self.to.has_blob(digest).await? {
                return Ok(true);
            }
            match (&self.to, mount_from) {
                (Repository::Registry(to), [from, ..]) => to.mount_blob(digest, from).await,
                _ => Ok(false),
            }
        };
        is_there.await.map_err(|source| ConvertError::Write {
            what: format!("blob {digest}"),
            source,
        })
    }

    /// Sends a small blob now.
    pub(super) async fn push_bytes(
        &mut self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
    ) -> Result<(), ConvertError> {
        while self.pushes.len() >= self.pushes_max {
            self.next().await?;
        }
        push(&self.to, descriptor, bytes.into(), &*self.progress).await
    }

    /// Makes a blob of the source be in the destination too.
    pub(super) async fn carry_over(
        &mut self,
        from: &Repository,
        descriptor: &Descriptor,
        spool_dir: &std::path::Path,
    ) -> Result<(), ConvertError> {
        if self.is_there(descriptor, &self.mount_from).await? {
            return Ok(());
        }
        let content = super::image::spool_blob(from, descriptor, spool_dir).await?;
        self.push_file(descriptor.clone(), content).await
    }

    /// Writes a manifest or index without a tag, once all blobs are there.
    pub(super) async fn put(
        &mut self,
        document: &Any,
        tag: Option<&str>,
    ) -> Result<(), ConvertError> {
        self.flush().await?;
        let put = self.to.put_manifest(tag, document).await;
        put.map_err(|source| ConvertError::Write {
            what: format!("manifest {}", document.digest()),
            source,
        })
    }

    /// Waits until all that was pushed is there.
    pub(super) async fn flush(&mut self) -> Result<(), ConvertError> {
        while !self.pushes.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), ConvertError> {
        match self.pushes.join_next().await {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only `self` aborts pushes, and it is still here.
                Err(_) => Ok(()),
            },
        }
    }
}

/// As [`push`], boxed.
fn push_to_caches<'a>(
    caches: &'a Caches,
    to: &'a Repository,
    descriptor: &'a Descriptor,
    payload: &'a Payload,
) -> BoxFuture<'a, ()> {
    Box::pin(caches.push_blob(to, descriptor, payload))
}

/// Boxed, because the compiler can't see that what is inside can be sent between threads.
fn push<'a>(
    to: &'a Repository,
    descriptor: &'a Descriptor,
    payload: Payload,
    progress: &'a dyn Progress,
) -> BoxFuture<'a, Result<(), ConvertError>> {
    Box::pin(async move {
        progress.push_started(&descriptor.digest, descriptor.size);
        // Nothing is mounted: what is pushed is new.
        let pushed = to.push_blob(descriptor, &payload, &[]).await;
        let pushed = pushed.map_err(|source| ConvertError::Write {
            what: format!("blob {}", descriptor.digest),
            source,
        })?;
        let sent = if pushed == Pushed::Written {
            descriptor.size
        } else {
            0
        };
        progress.push_done(&descriptor.digest, sent);
        Ok(())
    })
}
