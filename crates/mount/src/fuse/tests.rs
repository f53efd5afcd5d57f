//! Requests that no kernel makes.

use std::sync::Arc;

use proptest::prelude::*;
use rustix::io::Errno;
use zerocopy::IntoBytes as _;

use super::ability::OneFile;
use super::device::Device;
use super::protocol::{MINOR, RawRequest, flag};
use super::server::{Server, WANTED, agree, can_speak};

/// A server whose answers nobody reads.
fn server() -> Server {
    let null = fs_err::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .unwrap();
    let device = Device::new(null.into_file().into()).unwrap();
    Server::new(Arc::new(device), Arc::new(OneFile))
}

/// The bytes of a request.
fn request(opcode: u32, inode: u64, body: &[u8]) -> Vec<u8> {
    let header = RawRequest {
        len: u32::try_from(40 + body.len()).unwrap(),
        opcode,
        unique: 2,
        inode,
        ..Default::default()
    };
    [header.as_bytes(), body].concat()
}

#[test]
fn a_kernel_that_is_too_old_is_told_so() {
    assert!(can_speak(7, 31));
    for (major, minor) in [(7, 30), (6, 99), (8, 0)] {
        assert_eq!(agree(major, minor, 0).map(|_| ()), Err(Errno::PROTO));
    }
}

#[test]
fn only_what_is_offered_is_taken() {
    let all = agree(7, 45, u64::MAX).unwrap();
    let flags = u64::from(all.flags) | u64::from(all.flags_upper) << 32;
    assert_eq!((all.minor, flags), (MINOR, WANTED));
    let few = agree(7, 31, flag::ASYNC_READ).unwrap();
    assert_eq!((few.minor, few.flags, few.flags_upper), (31, 1, 0));
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        opcode in 0..60_u32,
        inode in 0..4_u64,
        body in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..120),
    ) {
        server().serve(&request(opcode, inode, &body)).unwrap();
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        // Less than a header can't be answered; anything else is.
        prop_assert_eq!(server().serve(&bytes).is_ok(), bytes.len() >= 40);
    }
}
