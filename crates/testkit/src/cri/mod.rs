//! Pods as a kubelet runs them: a client of Kubernetes' container runtime interface.
//!
//! ```no_run
//! use draught_testkit::containerd::{Config, CriConfig};
//! use draught_testkit::{Containerd, cri::Cri, images, registry};
//!
//! let registry = registry();
//! let Some(image) = images::tools() else { return };
//! let Some(reference) = registry.push_layout(&image, "tools") else { return };
//! let config = Config {
//!     cri: Some(CriConfig::new("overlayfs", &reference)),
//!     ..Config::default()
//! };
//! let Some(containerd) = Containerd::start_with(&config) else { return };
//! let cri = Cri::connect(containerd.socket()).unwrap();
//! cri.pull(&reference, None).unwrap();
//! let pod = cri.run_pod("a-pod", &containerd.dir().join("logs")).unwrap();
//! let id = cri.create(&pod, "one", &reference, &["sleep", "3600"]).unwrap();
//! cri.start(&id).unwrap();
//! assert_eq!(cri.exec(&id, &["echo", "hello"]).unwrap().stdout, "hello\n");
//! cri.stop(&id).unwrap();
//! cri.remove(&id).unwrap();
//! cri.stop_pod(&pod).unwrap();
//! cri.remove_pod(&pod).unwrap();
//! ```

mod client;
#[cfg(test)]
mod tests;

pub use client::{Cri, Executed, Pod};

/// The messages.
#[allow(
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    clippy::nursery,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub use generated::runtime::v1 as messages;
