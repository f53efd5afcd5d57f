//! A proxy in front of a registry that counts what passes and breaks what it is told to.
//!
//! ```no_run
//! use draught_testkit::fault_proxy::{Fault, FaultProxy, Rule};
//!
//! # let registry = "127.0.0.1:5000".parse().unwrap();
//! let proxy = FaultProxy::start(registry);
//! let rule = proxy.inject(Rule::new(Fault::Status(500)).on_blobs().times(2));
//! // … a client of proxy.addr() …
//! assert_eq!(proxy.hits(rule), 2);
//! assert_eq!(proxy.counts().blobs().requests, 3);
//! ```

mod auth;
mod counts;
mod link;
mod listen;
mod proxy;
mod relay;
mod rules;
#[cfg(test)]
mod tests;

pub use auth::Auth;
pub use counts::{Count, Counts, Kind, Logged};
pub use link::Link;
pub use proxy::FaultProxy;
pub use rules::{Fault, Rule, RuleId};
