//! What keeper and worker say to each other: messages of at most [`MESSAGE_BYTES_MAX`] bytes over a
//! `SOCK_SEQPACKET` socket, with descriptors. One byte says which message it is; keys are 32 bytes.
//!
//! The two may be of different versions after an upgrade: a message's meaning never changes, new ones
//! get new bytes, unknown ones are ignored.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use draught_sys::scm;

/// Longest message: a batch of keys.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 + KEY_BYTES * scm::DESCRIPTORS_MAX;

/// Bytes of the key under which the keeper holds a device's descriptor.
pub(crate) const KEY_BYTES: usize = 32;

/// Descriptors in the first message.
pub(crate) const START_DESCRIPTORS: usize = 5;

/// The key of a device.
pub(crate) type Key = [u8; KEY_BYTES];

/// What the keeper tells its worker.
#[derive(Debug)]
pub(crate) enum ToWorker {
    /// The first message: the group, the journal, the listening socket, the keeper's lock and the line to
    /// the guard. `fresh`: no worker has served with these yet; `lingers`: an earlier group may still be alive.
    Start {
        fresh: bool,
        lingers: bool,
        descriptors: [OwnedFd; START_DESCRIPTORS],
    },
    /// Devices that earlier workers gave to hold.
    Devices(Vec<(Key, OwnedFd)>),
    /// All devices were sent.
    Serve,
    /// The keeper holds a device that this worker gave it.
    Held,
    /// There is another guard: this is the line to it.
    Guard(OwnedFd),
    /// Somebody asks the keeper to stop: unmount everything and say whether that worked.
    Stop,
}

/// What a worker tells its keeper.
#[derive(Debug)]
pub(crate) enum ToKeeper {
    /// It serves.
    Serving,
    /// Hold this device's descriptor; answered by `Held`.
    Hold(Key, OwnedFd),
    /// Let go of a device.
    Release(Key),
    /// Nothing is mounted any more: stop when the worker has ended.
    Quit,
    /// Something is mounted still: go on.
    Busy,
    /// Start the next worker from this executable and do so now: this worker is about to end.
    Upgrade(OwnedFd),
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

fn one(descriptors: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    descriptors
        .into_iter()
        .next()
        .ok_or_else(|| wrong("a message came without its descriptor"))
}

fn key(payload: &[u8]) -> io::Result<Key> {
    payload
        .try_into()
        .map_err(|_| wrong("a message came without its key"))
}

/// Tells the worker to start.
pub(crate) fn send_start(
    socket: BorrowedFd<'_>,
    (fresh, lingers): (bool, bool),
    descriptors: [BorrowedFd<'_>; START_DESCRIPTORS],
) -> io::Result<()> {
    scm::send(
        socket,
        &[b'I', u8::from(fresh) | u8::from(lingers) << 1],
        &descriptors,
    )
}

/// Passes devices on, in batches.
pub(crate) fn send_devices<'a>(
    socket: BorrowedFd<'_>,
    devices: impl Iterator<Item = (&'a Key, &'a OwnedFd)>,
) -> io::Result<()> {
    let devices: Vec<_> = devices.collect();
    for batch in devices.chunks(scm::DESCRIPTORS_MAX) {
        let mut message = vec![b'D'];
        batch
            .iter()
            .for_each(|(key, _)| message.extend_from_slice(*key));
        let descriptors: Vec<_> = batch.iter().map(|(_, fd)| fd.as_fd()).collect();
        scm::send(socket, &message, &descriptors)?;
    }
    Ok(())
}

/// Sends a message to the worker that is one byte long.
pub(crate) fn send_to_worker(socket: BorrowedFd<'_>, message: &ToWorker) -> io::Result<()> {
    let byte = match message {
        ToWorker::Serve => b'E',
        ToWorker::Held => b'h',
        ToWorker::Stop => b'T',
        ToWorker::Start { .. } | ToWorker::Devices(_) | ToWorker::Guard(_) => {
            return Err(wrong("not a plain message"));
        }
    };
    scm::send(socket, &[byte], &[])
}

/// Gives the worker the line to another guard.
pub(crate) fn send_guard(socket: BorrowedFd<'_>, line: BorrowedFd<'_>) -> io::Result<()> {
    scm::send(socket, b"g", &[line])
}

/// Sends a message to the keeper.
pub(crate) fn send_to_keeper(socket: BorrowedFd<'_>, message: &ToKeeper) -> io::Result<()> {
    let keyed = |byte, key: &Key| [&[byte], &key[..]].concat();
    match message {
        ToKeeper::Serving => scm::send(socket, b"S", &[]),
        ToKeeper::Hold(key, fd) => scm::send(socket, &keyed(b'H', key), &[fd.as_fd()]),
        ToKeeper::Release(key) => scm::send(socket, &keyed(b'R', key), &[]),
        ToKeeper::Quit => scm::send(socket, b"Q", &[]),
        ToKeeper::Busy => scm::send(socket, b"B", &[]),
        ToKeeper::Upgrade(fd) => scm::send(socket, b"U", &[fd.as_fd()]),
    }
}

/// What was received: a message, one that this version does not know, or the end.
#[derive(Debug)]
pub(crate) enum Received<M> {
    Message(M),
    Unknown,
    End,
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    match scm::receive(socket, &mut buffer) {
        Ok((len, descriptors)) => {
            buffer.truncate(len);
            Ok((buffer, descriptors))
        }
        // The other side died with unread messages of ours.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok((vec![], vec![])),
        Err(error) => Err(error),
    }
}

/// Receives from the keeper.
pub(crate) fn receive_from_keeper(socket: BorrowedFd<'_>) -> io::Result<Received<ToWorker>> {
    let (message, descriptors) = receive(socket)?;
    let Some((tag, payload)) = message.split_first() else {
        return Ok(Received::End);
    };
    Ok(Received::Message(match tag {
        b'I' => {
            let has = |bit: u8| payload.first().is_some_and(|flags| flags >> bit & 1 == 1);
            let descriptors = descriptors
                .try_into()
                .map_err(|_| wrong("the first message came with another number of descriptors"))?;
            ToWorker::Start {
                fresh: has(0),
                lingers: has(1),
                descriptors,
            }
        }
        b'D' => {
            let keys = payload
                .chunks_exact(KEY_BYTES)
                .map(key)
                .collect::<io::Result<Vec<_>>>()?;
            if keys.len() != descriptors.len() {
                return Err(wrong("devices came with another number of descriptors"));
            }
            ToWorker::Devices(keys.into_iter().zip(descriptors).collect())
        }
        b'E' => ToWorker::Serve,
        b'h' => ToWorker::Held,
        b'g' => ToWorker::Guard(one(descriptors)?),
        b'T' => ToWorker::Stop,
        _ => return Ok(Received::Unknown),
    }))
}

/// Receives from the worker.
pub(crate) fn receive_from_worker(socket: BorrowedFd<'_>) -> io::Result<Received<ToKeeper>> {
    let (message, descriptors) = receive(socket)?;
    let Some((tag, payload)) = message.split_first() else {
        return Ok(Received::End);
    };
    Ok(Received::Message(match tag {
        b'S' => ToKeeper::Serving,
        b'H' => ToKeeper::Hold(key(payload)?, one(descriptors)?),
        b'R' => ToKeeper::Release(key(payload)?),
        b'Q' => ToKeeper::Quit,
        b'B' => ToKeeper::Busy,
        b'U' => ToKeeper::Upgrade(one(descriptors)?),
        _ => return Ok(Received::Unknown),
    }))
}
