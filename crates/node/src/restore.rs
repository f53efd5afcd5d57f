//! Taking up what the last worker served, and giving up what nobody served.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use draught_mount::mountinfo;
use draught_store::DeviceKey;

use crate::catalog::{load, read_touches};
use crate::error::MountError;
use crate::handover::Key;
use crate::mounts::{Inner, Live, Mounts, is_in_use, is_mounted};
use crate::record::{ImageRecord, RECORD};
use crate::sessions;
use crate::state::{MountRecord, State};
use crate::worker::Worker;

impl Mounts {
    /// Takes up what the last worker served.
    pub(crate) fn restore(
        &self,
        worker: &Arc<Worker>,
        state: State,
        mut held: BTreeMap<Key, OwnedFd>,
    ) {
        let mut inner = self.inner.lock();
        let infos = mountinfo();
        let mut all_served = true;
        for mut record in state.mounts {
            // A mount that its worker did not live to make, or that somebody else took away.
            record.detached |= infos
                .as_ref()
                .is_ok_and(|infos| !is_mounted(infos, &record));
            let mut live = Live {
                record,
                image: None,
                source: None,
                problem: None,
                session: None,
            };
            if let Err(error) = self.restore_one(worker, &mut inner, &mut live, &mut held) {
                // It stays listed: it can be unmounted, and the next worker may be luckier.
                all_served = false;
                let dir = live.record.dir.display();
                let error = &error as &dyn std::error::Error;
                tracing::error!(%dir, error, "a mount can't be served: reads of what is missing fail");
                live.problem = Some(error.to_string());
            }
            inner.live.push(live);
        }
        self.collect(worker, &mut inner);
        if let Err(error) = self.save(worker, &inner) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the list of mounts is old");
        }
        drop(inner);
        // Devices of mounts that a worker did not live to list.
        for key in held.keys().filter(|_| all_served) {
            if let Err(error) = worker.link.release(key) {
                tracing::debug!(%error, "the keeper goes on holding a device");
            }
        }
    }

    fn restore_one(
        &self,
        worker: &Arc<Worker>,
        inner: &mut Inner,
        live: &mut Live,
        held: &mut BTreeMap<Key, OwnedFd>,
    ) -> Result<(), MountError> {
        let record = &live.record;
        let image = if let Some((image, users)) = inner.images.get_mut(&record.image) {
            *users += 1;
            Arc::clone(image)
        } else {
            let mut kept = load(&worker.store, &record.image).map_err(MountError::Kept)?;
            kept.touches = read_touches(&worker.store, &record.image);
            let mut devices = Vec::new();
            for device in &kept.record.devices {
                let key = device.key().map_err(MountError::Kept)?;
                let served = if let Some((served, users)) = inner.devices.get_mut(&key) {
                    *users += 1;
                    Arc::clone(served)
                } else {
                    let torn = || MountError::Kept(io::Error::from(io::ErrorKind::InvalidData));
                    let fd = held.remove(&key).ok_or_else(torn)?;
                    let device = worker.store.adopt(&DeviceKey(key), device.bytes, fd);
                    let device = device.map_err(MountError::Device)?;
                    self.serve_device(worker, inner, key, device)
                };
                devices.push(served);
            }
            self.serve(worker, inner, kept, devices)?
        };
        let source = worker
            .engine
            .runtime()
            .block_on(worker.sources.open_source(&record.origin));
        match &source {
            Ok(source) => image.add_source(Arc::clone(source)),
            Err(error) => tracing::error!(
                error = error as &dyn std::error::Error,
                "a source can't be used: only what is present can be read"
            ),
        }
        if let Some(key) = sessions::key_of(record) {
            let device = held.remove(&key).ok_or_else(sessions::not_held);
            let session = device.and_then(|fd| sessions::resume(worker, record, &image, fd));
            match session {
                Ok(session) => live.session = Some(session),
                Err(error) => {
                    // Readers get errors: held by somebody who does not answer, they would wait for ever.
                    if let Err(error) = worker.link.release(&key) {
                        tracing::debug!(%error, "the keeper goes on holding a session");
                    }
                    live.problem = Some(error.to_string());
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "a session can't be gone on with");
                }
            }
        }
        if record.prefetch_all {
            worker.prefetch(&image, true);
        }
        live.image = Some(image);
        live.source = source.ok();
        Ok(())
    }

    /// Mounts whose keeper and worker both died while they were live: they can't be served again, so
    /// they are taken away, and said so. `lingers`: their group may be alive, held by nobody who answers; what it
    /// has marks on is not to be read by anybody any more.
    pub(crate) fn refuse_orphans(&self, worker: &Worker, state: State, lingers: bool) {
        let infos = mountinfo().unwrap_or_default();
        for record in state.mounts {
            tracing::error!(
                dir = %record.dir.display(),
                reference = record.origin.reference,
                "this mount lost keeper and worker: it is not handed out again, mount it anew"
            );
            if is_mounted(&infos, &record)
                && let Err(error) = sessions::detach(&record)
            {
                tracing::error!(error, "it could not be detached");
            }
            if sessions::needs_its_devices(&record)
                && (lingers || is_in_use(&record))
                && let Err(error) = abandon(worker, &record)
            {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "its devices could not be abandoned");
            }
        }
        if let Err(error) = self.save(worker, &self.inner.lock()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the list of mounts is old"
            );
        }
    }
}

/// Takes the devices of a mount that somebody still uses out of the store: the old filesystem goes on
/// with the old files, whose events nobody of this daemon sees, and new mounts get new ones. Other images
/// that share these devices are found incomplete when they are mounted next, and attached anew.
fn abandon(worker: &Worker, record: &MountRecord) -> Result<(), MountError> {
    let bytes = worker
        .store
        .read_image_file(&record.image, RECORD)
        .map_err(MountError::Kept)?;
    let image = ImageRecord::decode(&bytes).map_err(MountError::Kept)?;
    for device in image.devices {
        let key = device.key().map_err(MountError::Kept)?;
        worker
            .store
            .remove_device(&DeviceKey(key))
            .map_err(MountError::Device)?;
    }
    Ok(())
}
