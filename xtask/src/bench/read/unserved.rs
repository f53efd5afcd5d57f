//! What draught has put on the disk, mounted without draught: what the layout costs, and nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use draught_testkit::erofs;

use super::contender::{Contender, Kind, Readable};
use super::locally::Local;
use crate::bench::draught::Draught;
use crate::bench::node::Node;

/// The name in tables.
pub(crate) const NAME: &str = "the same devices, without draught";
/// How long fetching everything may take.
const FILL_MAX: Duration = Duration::from_secs(120);

/// A metadata image and its complete devices, copied out of a store.
#[derive(Debug)]
pub(super) struct Unserved {
    metadata: PathBuf,
    devices: Vec<PathBuf>,
}

impl Unserved {
    /// Fetches all of an image, and copies what then lies in the store.
    pub(super) fn make(draught: &Draught, reference: &str, scratch: &Path) -> Result<Self> {
        let root = scratch.join("unserved-root");
        {
            let mut node = Node::new(draught, &root)?;
            let dir = scratch.join("unserved-mount");
            node.mount_with(reference, &dir, &["--prefetch", "all"])?;
            node.wait_until_complete(&dir, FILL_MAX)?;
            node.unmount(&dir)?;
        }
        let images = fs_err::read_dir(root.join("store/images"))?;
        let images: Vec<PathBuf> = images
            .map(|image| Ok(image?.path()))
            .collect::<Result<_>>()?;
        ensure!(images.len() == 1, "find one image in a new store");
        let copies = scratch.join("unserved");
        fs_err::create_dir_all(&copies)?;
        let image = images.first().context("find the image in the store")?;
        let metadata = copies.join("meta.erofs");
        fs_err::copy(image.join("meta.erofs"), &metadata)?;
        let record = fs_err::read(image.join("image.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        let keys = record
            .get("devices")
            .and_then(serde_json::Value::as_array)
            .context("find the devices of the image")?;
        let mut devices = Vec::new();
        for device in keys {
            let key = device.get("key").and_then(serde_json::Value::as_str);
            let file = format!("{}.data", key.context("read the key of a device")?);
            let copy = copies.join(&file);
            fs_err::copy(root.join("store/devices").join(&file), &copy)?;
            devices.push(copy);
        }
        fs_err::remove_dir_all(root)?;
        Ok(Self { metadata, devices })
    }
}

impl Contender for Unserved {
    fn name(&self) -> &'static str {
        NAME
    }

    fn kind(&self) -> Kind {
        Kind::Local
    }

    fn mount(&self, work: &Path) -> Result<Box<dyn Readable + '_>> {
        let dir = work.join("mount");
        fs_err::create_dir_all(&dir)?;
        let mount = erofs::mount(&self.metadata, &self.devices, &dir)?;
        Ok(Box::new(Local::mounted(dir, mount)))
    }
}
