//! Credentials: where docker, podman and Kubernetes keep them, and those that were handed over.

mod all;
mod file;
mod globs;
mod helper;
mod keychain;
mod lookup;
mod plugin_config;
mod plugins;
mod secrets;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kubernetes;

pub use all::Credentials;
pub(crate) use all::{Found, Wanted};
pub use file::{Credential, CredentialError};
pub use keychain::{Keychain, KeychainError};
pub use lookup::CredentialFiles;
pub use plugins::Plugins;
pub use secrets::PullSecrets;
