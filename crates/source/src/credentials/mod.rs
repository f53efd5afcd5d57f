//! Credentials: where docker and podman keep them.

mod file;
mod helper;
mod lookup;
#[cfg(test)]
mod tests;

pub use file::{Credential, CredentialError};
pub use lookup::CredentialFiles;
