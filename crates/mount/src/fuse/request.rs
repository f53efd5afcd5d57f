//! Requests: bytes from the kernel ⇒ what is to be done.

use zerocopy::FromBytes;

use super::protocol::{RawInitIn, RawReadIn, RawRequest, RawXattrIn, opcode};

/// A request that was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// The number that the answer must carry.
    pub(super) unique: u64,
    /// The inode that it is about.
    pub(super) inode: u64,
    pub(super) operation: Operation<'a>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    /// Agree on how to speak with each other.
    Init {
        major: u32,
        minor: u32,
        readahead_max: u32,
        flags: u64,
    },
    Lookup {
        name: &'a [u8],
    },
    Attributes,
    Target,
    Read {
        offset: u64,
        size: u32,
    },
    List {
        offset: u64,
        size: u32,
        /// With attributes.
        plus: bool,
    },
    Xattr {
        name: &'a [u8],
        size: u32,
    },
    XattrNames {
        size: u32,
    },
    Totals,
    OpenDirectory,
    /// Something we opened is not needed any more.
    Release,
    /// Wants no answer.
    Silent,
    /// Would change something.
    Change,
    /// What we don't do, and the kernel does without.
    Unknown,
}

/// Bytes that are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// There is not even a number to answer to.
    Headless,
    /// This request is.
    Request {
        /// The number that the answer must carry.
        unique: u64,
    },
}

/// Reads one request.
pub(super) fn decode(bytes: &[u8]) -> Result<Request<'_>, Malformed> {
    let (header, body) = RawRequest::read_from_prefix(bytes).map_err(|_| Malformed::Headless)?;
    let malformed = Malformed::Request {
        unique: header.unique,
    };
    if usize::try_from(header.len) != Ok(bytes.len()) {
        return Err(malformed);
    }
    let operation = operation(header.opcode, body).ok_or(malformed)?;
    Ok(Request {
        unique: header.unique,
        inode: header.inode,
        operation,
    })
}

fn operation(opcode: u32, body: &[u8]) -> Option<Operation<'_>> {
    Some(match opcode {
        opcode::INIT => init(body)?,
        opcode::LOOKUP => Operation::Lookup { name: name(body)? },
        opcode::GETATTR => Operation::Attributes,
        opcode::READLINK => Operation::Target,
        opcode::READ => {
            let (raw, _) = RawReadIn::read_from_prefix(body).ok()?;
            Operation::Read {
                offset: raw.offset,
                size: raw.size,
            }
        }
        opcode::READDIR | opcode::READDIRPLUS => {
            let (raw, _) = RawReadIn::read_from_prefix(body).ok()?;
            Operation::List {
                offset: raw.offset,
                size: raw.size,
                plus: opcode == opcode::READDIRPLUS,
            }
        }
        opcode::GETXATTR => {
            let (raw, rest) = RawXattrIn::read_from_prefix(body).ok()?;
            Operation::Xattr {
                name: name(rest)?,
                size: raw.size,
            }
        }
        opcode::LISTXATTR => {
            let (raw, _) = RawXattrIn::read_from_prefix(body).ok()?;
            Operation::XattrNames { size: raw.size }
        }
        opcode::STATFS => Operation::Totals,
        opcode::OPENDIR => Operation::OpenDirectory,
        opcode::RELEASE | opcode::RELEASEDIR | opcode::DESTROY => Operation::Release,
        opcode::FORGET | opcode::BATCH_FORGET | opcode::NOTIFY_REPLY => Operation::Silent,
        opcode::SETATTR
        | opcode::SYMLINK
        | opcode::MKNOD
        | opcode::MKDIR
        | opcode::UNLINK
        | opcode::RMDIR
        | opcode::RENAME
        | opcode::RENAME2
        | opcode::LINK
        | opcode::WRITE
        | opcode::SETXATTR
        | opcode::REMOVEXATTR
        | opcode::CREATE
        | opcode::FALLOCATE
        | opcode::COPY_FILE_RANGE
        | opcode::TMPFILE => Operation::Change,
        _ => Operation::Unknown,
    })
}

fn init(body: &[u8]) -> Option<Operation<'_>> {
    let (raw, rest) = RawInitIn::read_from_prefix(body).ok()?;
    // Kernels before 5.17 have no upper half.
    let upper = u32::read_from_prefix(rest).map_or(0, |(upper, _)| upper);
    Some(Operation::Init {
        major: raw.major,
        minor: raw.minor,
        readahead_max: raw.readahead_max,
        flags: u64::from(raw.flags) | u64::from(upper) << 32,
    })
}

/// A name, which ends with a zero byte that must be there.
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let len = bytes.iter().position(|byte| *byte == 0)?;
    bytes.get(..len).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(size_of::<RawRequest>() + body.len()).unwrap();
        let header = RawRequest {
            len,
            opcode,
            unique: 6,
            inode: 9,
            ..RawRequest::default()
        };
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn a_lookup_is_read() {
        let bytes = request(opcode::LOOKUP, b"a name\0");
        let expect = Request {
            unique: 6,
            inode: 9,
            operation: Operation::Lookup { name: b"a name" },
        };
        assert_eq!(decode(&bytes), Ok(expect));
    }

    #[test]
    fn what_is_cut_off_or_has_another_length_is_malformed() {
        #[track_caller]
        fn check(bytes: &[u8], expect: Malformed) {
            assert_eq!(decode(bytes), Err(expect));
        }
        let known = Malformed::Request { unique: 6 };
        check(b"", Malformed::Headless);
        check(&[0; 39], Malformed::Headless);
        check(&request(opcode::LOOKUP, b"no end"), known);
        check(&request(opcode::LOOKUP, b"\0"), known);
        check(&request(opcode::READ, &[0; 39]), known);
        check(&request(opcode::GETXATTR, &[0; 7]), known);
        check(&request(opcode::GETXATTR, b"12345678no end"), known);
        check(&request(opcode::INIT, &[0; 15]), known);
        let mut longer = request(opcode::GETATTR, &[0; 16]);
        longer.push(0);
        check(&longer, known);
    }

    #[test]
    fn what_nobody_has_heard_of_is_unknown() {
        let bytes = request(4711, b"what");
        let found = decode(&bytes).map(|it| it.operation);
        assert_eq!(found, Ok(Operation::Unknown));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let understood = decode(&bytes).is_ok();
            prop_assert!(!understood || bytes.len() >= size_of::<RawRequest>());
        }

        #[test]
        fn no_body_makes_it_panic(
            opcode in 0..60_u32,
            body in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..120),
        ) {
            match decode(&request(opcode, &body)) {
                Ok(request) => prop_assert_eq!(request.unique, 6),
                Err(malformed) => prop_assert_eq!(malformed, Malformed::Request { unique: 6 }),
            }
        }
    }
}
