//! The devices of an image as files of a FUSE filesystem, for a kernel's EROFS to be mounted over.

use std::io;
use std::sync::Arc;

use draught_mount::fuse::{Attributes, DirEntry, Files, ROOT, ReadReply};

use crate::device_reads::{Part, answer};
use crate::engine::Engine;
use crate::served::Served;

const DIRECTORY_MODE: u32 = 0o040_500;
const FILE_MODE: u32 = 0o100_400;
/// The inode of the first device.
const FIRST_INODE: u64 = ROOT + 1;

/// Device N is file N.
#[derive(Debug)]
pub(crate) struct DeviceFiles {
    engine: Arc<Engine>,
    devices: Vec<Arc<Served>>,
}

impl DeviceFiles {
    pub(crate) fn new(engine: Arc<Engine>, devices: Vec<Arc<Served>>) -> Self {
        Self { engine, devices }
    }

    /// The name of a device's file.
    pub(crate) fn name(index: usize) -> String {
        index.to_string()
    }

    fn device(&self, inode: u64) -> io::Result<&Arc<Served>> {
        let index = inode.checked_sub(FIRST_INODE).map(usize::try_from);
        let device = index.and_then(|index| self.devices.get(index.ok()?));
        device.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Files for DeviceFiles {
    fn lookup(&self, parent: u64, name: &[u8]) -> io::Result<Attributes> {
        let index = std::str::from_utf8(name).ok();
        let index =
            index.and_then(|name| name.parse::<u64>().ok().filter(|it| it.to_string() == name));
        match index {
            Some(index) if parent == ROOT => self.attributes(FIRST_INODE.saturating_add(index)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn attributes(&self, inode: u64) -> io::Result<Attributes> {
        let (mode, bytes) = if inode == ROOT {
            (DIRECTORY_MODE, 0)
        } else {
            (FILE_MODE, self.device(inode)?.device().bytes())
        };
        Ok(Attributes {
            inode,
            bytes,
            mode,
            nlink: 1,
            ..Attributes::default()
        })
    }

    fn list(&self, _: u64, _: u64, _: &mut dyn FnMut(DirEntry<'_>) -> bool) -> io::Result<()> {
        // Nobody but us can see it, and we know what is in it.
        Ok(())
    }

    fn target(&self, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn read(&self, inode: u64, offset: u64, bytes: u32, reply: ReadReply) {
        let Ok(served) = self.device(inode) else {
            return reply.fail(&io::ErrorKind::NotFound.into());
        };
        let range = served.clamp(offset, bytes.into());
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let part = Part {
            served: Arc::clone(served),
            range,
            at: 0,
        };
        let parts = if len == 0 { Vec::new() } else { vec![part] };
        answer(&self.engine, parts, len, reply);
    }
}
