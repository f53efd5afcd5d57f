//! This crate is the kernel's side: probing, EROFS mounts, fanotify events and FUSE sessions.
//!
//! It is synchronous and knows devices only as files: what their content should be is for others.
#![forbid(unsafe_code)]

mod erofs;
mod events;
pub mod fuse;
mod mountinfo;
mod probe;

pub use erofs::{Detached, MountError, Readahead, detach, is_in_use, unmount};
pub use events::{Listener, ListenerError, Read};
pub use mountinfo::{MountInfo, mount_id, mountinfo};
pub use probe::{Ability, pre_content_events};
