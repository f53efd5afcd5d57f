//! A small read-only FUSE server whose sessions outlive the process that serves them.
//!
//! Why not a library that is there: a *keeper* holds the `/dev/fuse` descriptor, the *worker* that reads
//! requests from it may be killed at any moment, and the next worker goes on with the same descriptor. It sees
//! no opening handshake, has to ask the kernel for the requests that its predecessor took and never answered
//! (`FUSE_NOTIFY_RESEND`, Linux 6.9), and must know inodes by numbers that mean the same in both processes.
//! And reads are answered whenever the data is there, by whichever thread has it. Libraries own the
//! descriptor, insist on the handshake, or count lookups.
//!
//! Who was waiting when a worker died keeps waiting, and sees no error. As long as somebody holds the
//! descriptor: with the last one the connection ends, and everybody gets `ENOTCONN`.
//!
//! What a [`Files`] says may be remembered by the kernel for ever ([`Files::is_final`]). It is asked for
//! bytes of a file once, as long as they stay in the page cache.
//!
//! **Bounds.** Each thread of a session has one buffer for requests, of 16 KiB. Reads that are
//! waiting for data: [`READS_MAX`] that the kernel makes ahead of readers, and at most one for each thread
//! anywhere in the system that reads in the mount.
//!
//! **Interrupts** are declined, so the kernel sends none. A reader that is killed while it waits for a page
//! is gone at once. One that gets some other signal goes on waiting, as with any disk. Were its read ended with
//! `EINTR`, as the protocol offers, programs would see an error that no disk gives them, and mapped memory
//! would fault.
//!
//! **Never read through one's own mount in a thread that serves it**, not even a path lookup: it would wait for
//! itself.
//!
//! Origin: Linux `include/uapi/linux/fuse.h` and `Documentation/filesystems/fuse/`, `fuse(4)`; and for mounting
//! as an ordinary user `fusermount3(1)` of libfuse.

mod ability;
mod answer;
mod device;
mod files;
mod helper;
mod mounting;
mod protocol;
mod request;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use ability::fuse_ability;
pub use answer::ReadReply;
pub use files::{Attributes, DirEntry, Files, ROOT, Totals};
pub use mounting::{FuseError, FuseMount, FuseOptions, mount, set_readahead, unmount};
pub use server::READS_MAX;
pub use session::{End, Session, Start};
