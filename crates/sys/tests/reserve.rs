//! Numbers of unanswered events. In a process of its own: numbers are the whole process's.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use draught_sys::fanotify::{close_event, reserve_number};

fn is_open(number: i32) -> bool {
    Path::new(&format!("/proc/self/fd/{number}")).exists()
}

#[test]
fn a_reserved_number_is_occupied_even_if_it_is_the_lowest_free_one() {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).open("/dev/null").unwrap()
    };
    let lowest = open().as_raw_fd();
    for number in lowest..lowest + 4 {
        assert!(!is_open(number));
        assert!(reserve_number(number).unwrap());
        assert!(is_open(number), "{number}");
        assert!(!reserve_number(number).unwrap(), "it is in use now");
    }
    let next = open();
    assert!(next.as_raw_fd() > lowest + 3);
    for number in lowest..lowest + 4 {
        close_event(number);
        assert!(!is_open(number), "{number}");
    }
}
