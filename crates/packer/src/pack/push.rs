//! Blobs on their way to where they belong, while the next layer is packed.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_source::{BlobBackend, BlobReader, Payload, Pushed, SourceError};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::error::PackError;
use crate::blocking::blocking;
use crate::cache::{BuildCache, Caches, Kept, mountable};
use crate::progress::Progress;
use crate::spool::{Spool, Spooled};

/// Where a blob is sent.
#[derive(Debug, Clone)]
enum Targets {
    /// To the place for blobs of layers.
    Blobs,
    /// To the place for everything else.
    Documents,
    Caches,
    /// Of a layer that was packed, which may have its record noted when it is there.
    Layer(Option<Arc<Kept>>),
}

/// Sends blobs. When it is dropped, what is under way ends.
pub(crate) struct Pusher {
    /// Where blobs of layers belong.
    to: Arc<dyn BlobBackend>,
    /// Where bootstraps and configurations belong.
    documents: Arc<dyn BlobBackend>,
    progress: Arc<dyn Progress>,
    pushes: JoinSet<Result<(), PackError>>,
    pushes_max: usize,
    caches: Arc<Caches>,
    /// Blobs that are where they belong, or on their way.
    secured: BTreeSet<Digest>,
}

impl Pusher {
    /// Sends everything to one place.
    pub(crate) fn new(
        to: Arc<dyn BlobBackend>,
        caches: Caches,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            pushes_max: to.writes_at_once().max(1),
            documents: Arc::clone(&to),
            to,
            progress,
            pushes: JoinSet::new(),
            caches: Arc::new(caches),
            secured: BTreeSet::new(),
        }
    }

    /// Sends the blobs of layers to another place.
    pub(super) fn set_blobs(&mut self, to: Arc<dyn BlobBackend>) {
        self.pushes_max = self.pushes_max.min(to.writes_at_once()).max(1);
        self.to = to;
    }

    /// Tells somebody else what happens.
    pub(super) fn set_progress(&mut self, progress: Arc<dyn Progress>) {
        self.progress = Arc::clone(&progress);
        if let Some(caches) = Arc::get_mut(&mut self.caches) {
            caches.set_progress(progress);
        }
    }

    /// Adds a cache, as long as none is used.
    pub(super) fn add_cache(&mut self, cache: Arc<dyn BuildCache>) {
        if let Some(caches) = Arc::get_mut(&mut self.caches) {
            caches.push(cache);
        }
    }

    /// The build caches of the conversion.
    pub(crate) fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// Who is told what happens.
    pub(crate) fn progress(&self) -> &Arc<dyn Progress> {
        &self.progress
    }

    /// Sends a blob that is no layer's in the background; waits for an earlier one if there are many.
    pub(crate) async fn push_document(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
    ) -> Result<(), PackError> {
        self.send(descriptor, content, Targets::Documents).await
    }

    /// The same for the blob of a layer, which goes to the caches too. When it is there, `kept` is noted, so
    /// that the layer need not be packed again if the conversion ends before its time.
    pub(crate) async fn push_layer(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
        kept: Option<Arc<Kept>>,
    ) -> Result<(), PackError> {
        self.secured.insert(descriptor.digest);
        self.send(descriptor, content, Targets::Layer(kept)).await
    }

    async fn send(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
        targets: Targets,
    ) -> Result<(), PackError> {
        while self.pushes.len() >= self.pushes_max {
            self.next().await?;
        }
        let file = content
            .into_file()
            .map_err(|source| PackError::Spool { source })?;
        // The file has no name any more; as long as it is open, this is one.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let (to, progress) = (Arc::clone(&self.to), Arc::clone(&self.progress));
        let documents = Arc::clone(&self.documents);
        let caches = Arc::clone(&self.caches);
        self.pushes.spawn(async move {
            let payload = Payload::Spooled(path);
            match &targets {
                Targets::Documents => push(&*documents, &descriptor, &payload, &*progress).await?,
                Targets::Blobs | Targets::Layer(_) => {
                    push(&*to, &descriptor, &payload, &*progress).await?;
                }
                Targets::Caches => {}
            }
            if let Targets::Layer(Some(kept)) = &targets {
                caches.note(kept).await;
            }
            if let Targets::Caches | Targets::Layer(_) = targets {
                caches.push_blob(&*to, &descriptor, &payload).await;
            }
            drop(file);
            Ok(())
        });
        Ok(())
    }

    /// Makes the blob of a layer that cache `at` has be where it belongs and in all caches. `false` when it
    /// can't be had any more: then the layer is not whole.
    pub(crate) async fn secure(
        &mut self,
        blob: &Descriptor,
        at: usize,
        spool_dir: &Path,
    ) -> Result<bool, PackError> {
        if self.secured.contains(&blob.digest) {
            return Ok(true);
        }
        let caches = Arc::clone(&self.caches);
        let Some(from) = caches.blobs(at) else {
            return Ok(false);
        };
        let to = Arc::clone(&self.to);
        let is_there = is_there(&*to, blob, mountable(from, &*to)).await?;
        let targets = match is_there {
            false => Targets::Layer(None),
            true if caches.lack(&*to, blob).await => Targets::Caches,
            true => {
                self.secured.insert(blob.digest);
                return Ok(true);
            }
        };
        let mut content = spool_blob(from, blob, spool_dir).await;
        if is_there && content.is_err() {
            content = spool_blob(&*to, blob, spool_dir).await;
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

    /// Sends a small blob that is no layer's now.
    pub(crate) async fn push_bytes(
        &mut self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
    ) -> Result<(), PackError> {
        while self.pushes.len() >= self.pushes_max {
            self.next().await?;
        }
        let payload = Payload::from(bytes);
        push(&*self.documents, descriptor, &payload, &*self.progress).await
    }

    /// Makes a blob of another place be where layers' blobs belong, as it is.
    pub(crate) async fn take_blob(
        &mut self,
        from: &dyn BlobBackend,
        descriptor: &Descriptor,
        spool_dir: &Path,
    ) -> Result<(), PackError> {
        let to = Arc::clone(&self.to);
        self.take(from, &*to, Targets::Blobs, descriptor, spool_dir)
            .await
    }

    /// The same for what belongs where bootstraps and configurations are.
    pub(crate) async fn take_document(
        &mut self,
        from: &dyn BlobBackend,
        descriptor: &Descriptor,
        spool_dir: &Path,
    ) -> Result<(), PackError> {
        let to = Arc::clone(&self.documents);
        self.take(from, &*to, Targets::Documents, descriptor, spool_dir)
            .await
    }

    async fn take(
        &mut self,
        from: &dyn BlobBackend,
        to: &dyn BlobBackend,
        targets: Targets,
        descriptor: &Descriptor,
        spool_dir: &Path,
    ) -> Result<(), PackError> {
        if self.secured.contains(&descriptor.digest)
            || is_there(to, descriptor, mountable(from, to)).await?
        {
            return Ok(());
        }
        let content = spool_blob(from, descriptor, spool_dir).await?;
        self.secured.insert(descriptor.digest);
        self.send(descriptor.clone(), content, targets).await
    }

    /// Makes a stored layer be where it belongs without reading it, if that can be.
    pub(crate) async fn has_or_mounts(
        &mut self,
        descriptor: &Descriptor,
        from: Option<(&str, &str)>,
    ) -> Result<bool, PackError> {
        if self.secured.contains(&descriptor.digest) {
            return Ok(true);
        }
        let to = Arc::clone(&self.to);
        let from = match (from, to.in_registry()) {
            (Some((host, name)), Some((to_host, to_name)))
                if host == to_host && name != to_name =>
            {
                Some(name.to_owned())
            }
            _ => None,
        };
        let is_there = is_there(&*to, descriptor, from).await?;
        if is_there {
            self.secured.insert(descriptor.digest);
        }
        Ok(is_there)
    }

    /// Waits until all that was pushed is there.
    pub(crate) async fn flush(&mut self) -> Result<(), PackError> {
        while !self.pushes.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), PackError> {
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

/// Whether a place has a blob; it takes it from that repository of its registry if it can.
async fn is_there(
    to: &dyn BlobBackend,
    blob: &Descriptor,
    mount_from: Option<String>,
) -> Result<bool, PackError> {
    let digest = &blob.digest;
    let is_there = async {
        if to.has_blob(digest).await? {
            return Ok(true);
        }
        match mount_from {
            Some(from) => to.mount_blob(digest, &from).await,
            None => Ok(false),
        }
    };
    let is_there: Result<bool, SourceError> = is_there.await;
    is_there.map_err(|source| PackError::Write {
        what: format!("blob {digest}"),
        source,
    })
}

/// Boxed, because the compiler can't see that what is inside can be sent between threads.
fn push<'a>(
    to: &'a dyn BlobBackend,
    descriptor: &'a Descriptor,
    payload: &'a Payload,
    progress: &'a dyn Progress,
) -> BoxFuture<'a, Result<(), PackError>> {
    Box::pin(async move {
        progress.push_started(&descriptor.digest, descriptor.size);
        let pushed = to.put_blob(descriptor, payload).await;
        let pushed = pushed.map_err(|source| PackError::Write {
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

/// Writes a blob of another place to the spool directory.
pub(crate) async fn spool_blob(
    from: &dyn BlobBackend,
    descriptor: &Descriptor,
    dir: &Path,
) -> Result<Spooled, PackError> {
    let what = format!("blob {}", descriptor.digest);
    let stream = from
        .blob(descriptor)
        .await
        .map_err(|source| PackError::Read { what, source })?;
    let mut reader = BlobReader::new(stream, &Handle::current());
    let dir: PathBuf = dir.to_owned();
    let spooled = blocking(move || {
        let mut spool = Spool::new(&dir)?;
        std::io::copy(&mut reader, &mut spool)?;
        Ok(spool.finish())
    })
    .await;
    spooled.map_err(|source| PackError::Spool { source })
}
