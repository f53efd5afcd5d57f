//! Numbers of unanswered events. In a process of its own: numbers are the whole process's.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use draught_sys::fanotify::{close_event, reserve_number};

fn is_open(number: i32) -> bool {
    Path::new(&format!("/proc/self/fd/{number}")).exists()
}

#[test]
fn a_reserved_number_is_occupied_even_if_it_is_the_lowest_free_one() {
    let lowest = File::open("/dev/null").unwrap().as_raw_fd();
    for number in lowest..lowest + 4 {
        assert!(!is_open(number));
        assert!(reserve_number(number).unwrap());
        assert!(is_open(number), "{number}");
        assert!(!reserve_number(number).unwrap(), "it is in use now");
    }
    let next = File::open("/dev/null").unwrap();
    assert!(next.as_raw_fd() > lowest + 3);
    for number in lowest..lowest + 4 {
        close_event(number);
        assert!(!is_open(number), "{number}");
    }
}
