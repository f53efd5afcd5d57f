//! Devices opened through a descriptor that another process kept.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[macro_use]
mod common;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{BYTES, KEY, device, fill, map_path, open, present};
use draught_store::{DeviceError, DeviceKey};
use draught_sys::fanotify::Group;
use draught_testkit::{Scratch, need};

fn reopened(path: &std::path::Path, options: &fs_err::OpenOptions) -> OwnedFd {
    OwnedFd::from(options.open(path).unwrap().into_parts().0)
}

#[test]
fn an_adopted_device_is_the_one_that_was_left() {
    let scratch = Scratch::new();
    let kept = {
        let store = open(scratch.path(), "boot");
        let device = device(&store);
        fill(&device, 5..7);
        device.as_fd().try_clone_to_owned().unwrap()
    };
    let store = open(scratch.path(), "boot");
    let again = kept.try_clone().unwrap();
    let adopted = store.adopt(&KEY, BYTES, kept).unwrap();
    assert_eq!(present(&adopted), [5, 6]);
    fill(&adopted, 8..9);
    assert!(Arc::ptr_eq(&adopted, &device(&store)));
    assert!(Arc::ptr_eq(
        &adopted,
        &store.adopt(&KEY, BYTES, again).unwrap()
    ));
    adopted.sync().unwrap();
    drop(adopted);
    drop(store);
    assert_eq!(
        present(&device(&open(scratch.path(), "other boot"))),
        [5, 6, 8]
    );
}

#[test]
fn only_the_data_file_itself_is_adopted() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let other = store.device(&DeviceKey([1; 32]), BYTES).unwrap();
    let path = device(&store).path().to_owned();
    store.forget(&KEY);
    let read_write = fs_err::OpenOptions::new().read(true).write(true).clone();
    let given = [
        (
            other.as_fd().try_clone_to_owned().unwrap(),
            "it is another file",
        ),
        (
            reopened(&path, fs_err::OpenOptions::new().read(true)),
            "it was not opened for reading and writing",
        ),
        (
            reopened(&path, fs_err::OpenOptions::new().read(true).append(true)),
            "it was opened for appending",
        ),
    ];
    for (descriptor, expected) in given {
        let error = store.adopt(&KEY, BYTES, descriptor).unwrap_err();
        assert_matches!(error, DeviceError::NotTheFile { reason, .. } if reason == expected);
    }
    let error = store
        .adopt(&KEY, BYTES - 4096, reopened(&path, &read_write))
        .unwrap_err();
    assert_matches!(
        error,
        DeviceError::NotTheFile {
            reason: "the file has another size",
            ..
        }
    );
    let descriptor = reopened(&path, &read_write);
    store.remove_device(&KEY).unwrap();
    let error = store.adopt(&KEY, BYTES, descriptor).unwrap_err();
    assert_matches!(
        error,
        DeviceError::NotTheFile {
            reason: "it is another file",
            ..
        }
    );
}

#[test]
fn an_adopted_device_without_a_map_starts_empty() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "boot");
    let first = device(&store);
    fill(&first, 0..9);
    fs_err::remove_file(map_path(&first)).unwrap();
    let descriptor = first.as_fd().try_clone_to_owned().unwrap();
    drop(first);
    store.forget(&KEY);
    let adopted = store.adopt(&KEY, BYTES, descriptor).unwrap();
    assert!(present(&adopted).is_empty());
    fill(&adopted, 0..1);
    assert_eq!(present(&adopted), [0]);
}

#[test]
fn writing_through_an_adopted_descriptor_waits_for_nobody() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    let kept = {
        let store = open(scratch.path(), "boot");
        device(&store).as_fd().try_clone_to_owned().unwrap()
    };
    // Nobody answers this group's events: whoever raises one hangs until the group is closed.
    let group = match Group::new() {
        Ok(group) => group,
        Err(error) => return need::skip(&format!("there are no pre-content events: {error}")),
    };
    if let Err(error) = group.mark(kept.as_fd()) {
        return need::skip(&format!("there are no pre-content events here: {error}"));
    }
    let (done, is_done) = mpsc::channel();
    let root = scratch.path().to_owned();
    let worker = std::thread::spawn(move || {
        let store = open(&root, "boot");
        let adopted = store.adopt(&KEY, BYTES, kept).unwrap();
        fill(&adopted, 3..300);
        adopted.sync().unwrap();
        done.send(adopted.bytes_durable()).unwrap();
    });
    let result = is_done.recv_timeout(Duration::from_secs(60));
    drop(group);
    worker.join().unwrap();
    assert_eq!(result, Ok(297 * 4096));
}
