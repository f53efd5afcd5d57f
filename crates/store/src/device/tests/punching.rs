//! Blocks that are taken back, where that is not possible, and while somebody fills them.

use std::sync::Arc;

use super::super::sim::{Hook, Which};
use super::lives::{fill, holds, new_world, present, punch, sync};
use crate::error::WriteError;

#[test]
fn a_filesystem_without_holes_is_named_and_blocks_are_taken_back_all_the_same() {
    let (disk, blocks) = new_world();
    fill(&blocks, &disk, &(0..4)).unwrap();
    sync(&blocks, &disk).unwrap();
    disk.forbid_punching();
    let error = punch(&blocks, &disk, std::slice::from_ref(&(1..3))).unwrap_err();
    assert!(matches!(error, WriteError::NoHoles { .. }), "{error}");
    assert_eq!(present(&blocks), [0, 3]);
    fill(&blocks, &disk, &(1..3)).unwrap();
    assert_eq!(present(&blocks), [0, 1, 2, 3]);
}

#[test]
fn who_fills_what_is_being_punched_comes_after_the_hole() {
    let (disk, blocks) = new_world();
    let blocks = Arc::new(blocks);
    fill(&blocks, &disk, &(0..8)).unwrap();
    sync(&blocks, &disk).unwrap();
    let (begun, done) = std::sync::mpsc::channel();
    let (filling, device) = (Arc::clone(&blocks), disk.clone());
    // From the middle of a punch that has taken blocks back and has not made the hole yet; gives the thread
    // time to be done, if nothing holds it.
    let late = move || {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let filled = fill(&filling, &device, &(2..4));
            let _nobody_waits = tell.send(());
            filled
        });
        let _held_back = told.recv_timeout(std::time::Duration::from_millis(100));
        begun.send(thread).unwrap();
    };
    disk.set_hook(Some(Hook {
        which: Which::Map,
        before: true,
        action: Box::new(late),
    }));
    punch(&blocks, &disk, std::slice::from_ref(&(0..6))).unwrap();
    done.recv().unwrap().join().unwrap().unwrap();
    assert_eq!(present(&blocks), [2, 3, 6, 7]);
    let data = disk.now().data;
    assert!(
        present(&blocks)
            .into_iter()
            .all(|block| holds(&data, block))
    );
}
