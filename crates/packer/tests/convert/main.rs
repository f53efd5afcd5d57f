//! Whole images, through registries and layouts.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails here fails the test that called it"
)]

mod formats;
mod interrupted;
mod published;
mod support;
mod whole;
