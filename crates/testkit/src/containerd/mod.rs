//! A containerd of one's own, on scratch directories.

mod config;
mod daemon;
mod shims;
#[cfg(test)]
mod tests;

pub use config::{Config, CriConfig, Proxy};
pub use daemon::Containerd;
