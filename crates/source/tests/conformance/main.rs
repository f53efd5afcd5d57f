//! Every place that images are in, good ways and bad ways to it, and servers that lie.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

mod archives;
mod archives_written;
mod faults;
mod hostile;
mod hosts;
mod kept;
mod login;
mod objects;
mod objects_oss;
mod places;
mod support;
mod tls;
mod tls_hosts;
