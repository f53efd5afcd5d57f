//! Which hosts are asked for what a registry has, and how: containerd's `hosts.toml`.
//!
//! Origin: containerd's `docs/hosts.md` (2.x), and docker's layout of certificate files.

mod directory;
mod file;
mod health;
mod known;
mod route;
#[cfg(test)]
mod tests;

pub use directory::Looked;
pub use file::{Capability, ClientFiles, HostSettings, HostsFile, HostsFileError};
pub use known::{Hosts, HostsError};
pub(crate) use route::{Dial, Route};
