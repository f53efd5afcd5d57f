//! Kubernetes' image service, passed on to containerd, with an ear for who may pull what.
//!
//! The kubelet sends credentials along with `PullImage` and with nothing else. Who stands between it and containerd hears them:
//! [`serve`] passes every call on as it comes, and hands over what a pull brings to a
//! [`draught_source::Keychain`], for that image's repository alone.

mod passing;
mod proxy;
mod pull;
#[cfg(test)]
mod tests;

pub use proxy::serve;
