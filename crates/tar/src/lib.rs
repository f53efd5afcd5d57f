//! This crate is tar and pax archives, decoded into tree entries and encoded from them.
#![forbid(unsafe_code)]
