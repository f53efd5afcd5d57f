//! This crate is what tests share: images, registries with faults, tree comparison, real tools.
//!
//! Whatever it starts or mounts it also ends, by what it recorded, when the guard is dropped.
//! Nothing here is part of the program: functions panic where a test could only unwrap.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

mod background;
pub mod compare;
pub mod containerd;
pub mod cri;
pub mod erofs;
pub mod estargz;
pub mod facts;
pub mod fault_proxy;
pub mod http;
pub mod images;
pub mod mounted;
pub mod need;
pub mod net;
pub mod nydus;
pub mod process;
pub mod registry;
pub mod s3;
pub mod scratch;
pub mod snapshots;

pub use containerd::Containerd;
pub use estargz::Estargz;
pub use fault_proxy::FaultProxy;
pub use mounted::MountGuard;
pub use process::Process;
pub use registry::{TestRegistry, docker_registry, registry, registry_in};
pub use s3::S3Server;
pub use scratch::Scratch;
