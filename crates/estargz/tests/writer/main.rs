//! What is written is read back: by the crate's reader, by unpackers, by the format's own tools.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here fails the test"
)]

mod foreign;
mod layers;
mod prefetch;
mod random;
mod support;
