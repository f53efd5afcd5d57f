//! Messages with descriptors over Unix sockets (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message: well below the kernel's 253.
pub const DESCRIPTORS_MAX: usize = 64;

/// Sends one message. The socket is to be of a kind that keeps messages apart (`SOCK_SEQPACKET`).
///
/// # Errors
/// What `sendmsg` says; `InvalidInput` when there are more than [`DESCRIPTORS_MAX`] descriptors.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    loop {
        match sendmsg(
            socket,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message into `buffer`: its length and the descriptors that came with it. Length 0: the
/// other side is gone.
///
/// # Errors
/// What `recvmsg` says; `InvalidData` when the message was longer than the buffer.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result?,
        }
    };
    let truncated = received.flags.bits() & libc::MSG_TRUNC.unsigned_abs() != 0;
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if truncated {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message was too long",
        ));
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (left, right) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(left.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        send(left.as_fd(), b"again", &[]).unwrap();
        let mut buffer = [0; 16];
        let (len, descriptors) = receive(right.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        rustix::io::write(&descriptors[0], b"x").unwrap();
        let mut byte = [0; 1];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
        let (len, descriptors) = receive(right.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..len], descriptors.len()), (&b"again"[..], 0));
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut buffer).unwrap().0, 0);
    }
}
