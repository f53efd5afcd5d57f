//! Registries, as the OCI distribution specification v1.1 has them.

mod client;
mod list;
mod manifest;
mod push;
mod range;
mod read;
mod reading;

pub use client::{Client, RegistryRepository};
pub(crate) use range::{check as check_range, parse_content_range};
