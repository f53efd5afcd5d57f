//! This crate is profiles: what a program's start touches of an image, in order, in a form that moves between
//! nodes and outlives packing the image anew. So it speaks of paths and bytes of files, not of chunks.
//!
//! Text, one JSON object a line. The first says what it is and of which image:
//!
//! ```text
//! {"draught_profile":1,"reference":"registry.example.com/app:1","image":"sha256:…"}
//! {"path":"usr/bin/python3.11","offset":0,"bytes":131072,"at_ms":12}
//! ```
//!
//! The others are in the order of the first touch. Paths have no leading slash; bytes that are not UTF-8, control
//! characters and `%` are written as `%` and two hexadecimal digits.
//!
//! Origin: our own format. It may come from anybody: [`Profile::parse`] takes [`Limits`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod path;
mod profile;
mod resolve;
#[cfg(test)]
mod tests;

pub use profile::{Limits, ParseError, Profile, Touch};
pub use resolve::Resolved;
