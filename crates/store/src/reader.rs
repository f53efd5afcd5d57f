//! A store that belongs to another process, looked at.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::device::{BootId, Glimpse, Opener, narrow};
use crate::error::OpenError;
use crate::image::Images;
use crate::key::DeviceKey;
use crate::layout::is_known;

/// A look at a store that another process may have open. Nothing is locked or written: what is seen was so when it
/// was looked at, and whoever needs to be sure compares digests.
#[derive(Debug)]
pub struct Reader {
    opener: Opener,
    images: Images,
}

/// What is present of a device.
#[derive(Debug)]
pub struct DeviceReader {
    glimpse: Glimpse,
    data: std::fs::File,
}

impl Reader {
    /// Looks at the store in the directory `root`; `None` if there is none. `boot_id` as for
    /// [`Store::open`](crate::Store::open).
    ///
    /// # Errors
    ///
    /// If it has another layout, or the filesystem refuses.
    pub fn open(root: &Path, boot_id: &str) -> Result<Option<Self>, OpenError> {
        if !is_known(root)? {
            return Ok(None);
        }
        let opener = Opener::new(root.join("devices"), BootId::new(boot_id));
        let opener = opener.map_err(|source| OpenError::Io {
            root: root.to_owned(),
            action: "open the directory of devices",
            source,
        })?;
        Ok(Some(Self {
            opener,
            images: Images::new(root.join("images")),
        }))
    }

    /// As [`Store::images`](crate::Store::images).
    ///
    /// # Errors
    ///
    /// If the directory can't be read.
    pub fn images(&self) -> io::Result<Vec<String>> {
        self.images.names()
    }

    /// As [`Store::read_image_file`](crate::Store::read_image_file).
    ///
    /// # Errors
    ///
    /// Of kind `NotFound` if there is none; otherwise as the filesystem says.
    pub fn read_image_file(&self, image: &str, file: &str) -> io::Result<Vec<u8>> {
        self.images.read(image, file)
    }

    /// Looks at a device of `bytes` bytes; `None` if it is not there, or nothing says what is present.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses.
    pub fn device(&self, key: &DeviceKey, bytes: u64) -> io::Result<Option<DeviceReader>> {
        let Some(glimpse) = self.opener.glimpse(key, bytes, true)? else {
            return Ok(None);
        };
        let data = match fs_err::File::open(self.opener.paths().data(key)) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(DeviceReader { glimpse, data }))
    }
}

impl DeviceReader {
    /// Whether all blocks of `range` (of bytes) are present. Cheap when the ranges asked for one after the other ascend.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses.
    pub fn is_present(&mut self, range: Range<u64>) -> io::Result<bool> {
        self.glimpse.is_present(range)
    }

    /// Replaces `out` by the bytes of `range`; says false if not all of its blocks are present: then nothing is read,
    /// for a read of what is missing would have it fetched.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses.
    pub fn read(&mut self, range: Range<u64>, out: &mut Vec<u8>) -> io::Result<bool> {
        out.clear();
        if !self.is_present(range.clone())? {
            return Ok(false);
        }
        out.resize(narrow(range.end.saturating_sub(range.start)), 0);
        self.data.read_exact_at(out, range.start)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn what_is_present_is_read_while_somebody_else_has_the_store_open() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("store");
        assert!(Reader::open(&root, "boot").unwrap().is_none());
        let store = Store::open(&root, "boot").unwrap();
        let key = DeviceKey([7; 32]);
        let device = store.device(&key, 4 * 4096).unwrap();
        device.fill(4096, &[1; 4096]).unwrap();
        store.put_image_file("some", "file", b"x").unwrap();
        let reader = Reader::open(&root, "boot").unwrap().unwrap();
        assert_eq!(reader.images().unwrap(), ["some"]);
        assert_eq!(reader.read_image_file("some", "file").unwrap(), b"x");
        let mut out = vec![9];
        let mut there = reader.device(&key, 4 * 4096).unwrap().unwrap();
        assert!(there.read(4096..5000, &mut out).unwrap());
        assert_eq!(out, [1; 904]);
        assert!(!there.read(4096..8193, &mut out).unwrap());
        // Another boot: it was not made durable.
        let reader = Reader::open(&root, "other").unwrap().unwrap();
        let mut there = reader.device(&key, 4 * 4096).unwrap().unwrap();
        assert!(!there.read(4096..5000, &mut out).unwrap());
        assert!(reader.device(&DeviceKey([8; 32]), 4096).unwrap().is_none());
        device.sync().unwrap();
        assert!(there.read(4096..8192, &mut out).is_ok());
        // Of another size it is another.
        assert!(reader.device(&key, 4096).unwrap().is_none());
    }

    #[test]
    fn a_store_of_another_version_is_not_looked_at() {
        let scratch = tempfile::tempdir().unwrap();
        fs_err::write(scratch.path().join("version"), "draught store 99\n").unwrap();
        assert!(matches!(
            Reader::open(scratch.path(), "boot"),
            Err(OpenError::Version { .. })
        ));
    }
}
