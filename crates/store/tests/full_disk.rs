//! A filesystem that is really full.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[macro_use]
mod common;

use std::path::Path;

use common::{BYTES, KEY, block_bytes, device, fill, open, present};
use draught_store::{BLOCK_BYTES, DeviceError, WriteError};
use draught_testkit::{MountGuard, Scratch, need};

/// A filesystem of one MiB in `dir`.
fn small_filesystem(dir: &Path) -> Option<MountGuard> {
    if !need::root() {
        return None;
    }
    let mount = need::tool("mount")?;
    let mut command = std::process::Command::new(mount);
    command
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(dir);
    Some(MountGuard::run(&mut command, dir))
}

#[test]
fn a_full_disk_refuses_more_and_keeps_what_is_there() {
    let scratch = Scratch::new();
    let root = scratch.dir("small");
    let Some(mounted) = small_filesystem(&root) else {
        return;
    };
    {
        let store = open(&root, "boot");
        let device = device(&store);
        let mut filled = 0;
        let error = loop {
            let offset = filled * BLOCK_BYTES;
            if let Err(error) = device.write(offset, &block_bytes(filled)) {
                break error;
            }
            device.mark_present(offset..offset + BLOCK_BYTES).unwrap();
            filled += 1;
        };
        assert_matches!(error, WriteError::NoSpace { .. });
        assert!(!device.is_poisoned());
        assert_eq!(present(&device), (0..filled).collect::<Vec<_>>());
        device.sync().unwrap();
        let other = draught_store::DeviceKey([1; 32]);
        assert_matches!(
            store.device(&other, BYTES),
            Err(DeviceError::NoSpace { .. })
        );
        assert!(store.put_image_file("image", "file", &[1; 8192]).is_err());
        assert!(store.read_image_file("image", "file").is_err());
        // Space returns, and the same device takes data again.
        let space = &root.join(format!("devices/{}.data", other.hex()));
        drop(fs_err::remove_file(space));
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(device.path())
            .unwrap();
        rustix::fs::fallocate(
            file.file(),
            rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
            0,
            4 * BLOCK_BYTES,
        )
        .unwrap();
        fill(&device, 0..4);
        assert_eq!(present(&device).len(), usize::try_from(filled).unwrap());
    }
    let store = open(&root, "boot");
    assert!(present(&store.device(&KEY, BYTES).unwrap()).len() > 100);
    drop(store);
    drop(mounted);
}
