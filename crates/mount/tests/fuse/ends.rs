//! How sessions end, and how others go on.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use draught_mount::fuse::{End, Session, Start, unmount};
use draught_testkit::{Scratch, need};

use crate::mirror::{Mirror, OnRead};
use crate::served::{PATIENCE, Served, assert_success, cmp, drop_pages, output, write_file};

#[test]
fn unmounting_ends_the_session() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 10, 1);
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    let session = served.session.as_ref().unwrap();
    assert!(session.wait_for(Duration::ZERO).is_none());
    unmount(&served.dir, false).unwrap();
    let end = session.wait_for(PATIENCE);
    assert!(matches!(end, Some(End::Unmounted)), "{end:?}");
    assert!(matches!(session.wait(), End::Unmounted));
}

#[test]
fn a_filesystem_in_use_is_only_unmounted_if_that_is_wanted() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 10, 1);
    let served = Served::start(Arc::new(Mirror::of(scratch.path())));
    let file = fs_err::File::open(served.join("file")).unwrap();
    let error = unmount(&served.dir, false).unwrap_err();
    assert!(format!("{error:?}").contains("Busy"), "{error:?}");
    unmount(&served.dir, true).unwrap();
    let session = served.session.as_ref().unwrap();
    assert!(session.wait_for(Duration::from_millis(50)).is_none());
    drop(file);
    let end = session.wait_for(PATIENCE);
    assert!(matches!(end, Some(End::Unmounted)), "{end:?}");
}

#[test]
fn a_session_hands_over_to_the_next_and_late_answers_do_no_harm() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 100_000, 1);
    let (sender, reads) = channel();
    let keep: OnRead = Box::new(move |_path, bytes, reply| sender.send((bytes, reply)).unwrap());
    let mut served = Served::start(Arc::new(Mirror::with(scratch.path(), keep)));
    let mut reader = cmp(&served.join("file"), &scratch.join("file"))
        .spawn()
        .unwrap();
    let kept = reads.recv_timeout(PATIENCE).unwrap();
    let end = served.session.take().unwrap().stop();
    assert!(matches!(end, End::Stopped), "{end:?}");
    assert!(reader.try_wait().unwrap().is_none());
    served.serve(Arc::new(Mirror::of(scratch.path())), Start::Resumed);
    assert!(reader.wait().unwrap().success());
    kept.1.data(&kept.0);
    drop_pages(&served.join("file"));
    let mut again = cmp(&served.join("file"), &scratch.join("file"));
    assert_success(&output(&mut again));
}

#[test]
fn a_session_that_somebody_began_is_not_begun_again() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 10, 1);
    let files = Arc::new(Mirror::of(scratch.path()));
    let served = Served::start(Arc::<Mirror>::clone(&files));
    unmount(&served.dir, false).unwrap();
    let device = served.device.try_clone().unwrap();
    let error = Session::start(device, files, Start::New, 1).unwrap_err();
    let expected = rustix::io::Errno::NODEV.raw_os_error();
    assert_eq!(error.raw_os_error(), Some(expected));
}

#[test]
fn who_resumes_what_nobody_began_begins_it() {
    if !need::root() {
        return;
    }
    let scratch = Scratch::new();
    write_file(&scratch.join("file"), 10_000, 1);
    // As if a server had been killed before it answered the kernel's first request.
    let mut served = Served::mounted();
    served.serve(Arc::new(Mirror::of(scratch.path())), Start::Resumed);
    let mut compare = cmp(&served.join("file"), &scratch.join("file"));
    assert_success(&output(&mut compare));
}
