//! This crate is the kernel's side: probing, EROFS mounts and fanotify events.
#![forbid(unsafe_code)]
