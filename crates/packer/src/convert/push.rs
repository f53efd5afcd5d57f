//! Blobs on their way to the destination, while the next layer is packed.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use draught_oci::{Any, Descriptor};
use draught_source::{Payload, Pushed, Repository};
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::error::ConvertError;
use crate::progress::Progress;
use crate::spool::Spooled;

/// Blobs that are sent at once. Two keep a connection busy while another waits for the registry to
/// commit; the spool directory needs room for so many and the one that is being packed.
const PUSHES: usize = 2;

/// Sends blobs to a repository. When it is dropped, what is under way ends.
pub(super) struct Pusher {
    to: Repository,
    /// Repositories of the same registry that may have a blob already.
    mount_from: Vec<String>,
    progress: Arc<dyn Progress>,
    pushes: JoinSet<Result<(), ConvertError>>,
    pushes_max: usize,
}

impl Pusher {
    pub(super) fn new(
        to: Repository,
        from: Option<&Repository>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let mount_from = match (&to, from) {
            (Repository::Registry(to), Some(Repository::Registry(from)))
                if to.host() == from.host() && to.name() != from.name() =>
            {
                vec![from.name().to_owned()]
            }
            _ => Vec::new(),
        };
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
        }
    }

    /// Sends a blob in the background; waits for an earlier one if there are many.
    pub(super) async fn push_file(
        &mut self,
        descriptor: Descriptor,
        content: Spooled,
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
        self.pushes.spawn(async move {
            let outcome = push(&to, &descriptor, Payload::File(path), &*progress).await;
            drop(file);
            outcome
        });
        Ok(())
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
        let write_failed = |source| ConvertError::Write {
            what: format!("blob {}", descriptor.digest),
            source,
        };
        if self
            .to
            .has_blob(&descriptor.digest)
            .await
            .map_err(write_failed)?
        {
            return Ok(());
        }
        if let (Repository::Registry(to), [from, ..]) = (&self.to, &*self.mount_from)
            && to
                .mount_blob(&descriptor.digest, from)
                .await
                .map_err(write_failed)?
        {
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
