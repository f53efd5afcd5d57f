//! Requests and answers: connections, time-outs, redirects, bodies.

mod answer;
mod body;
mod connect;
mod identity;
mod send;

pub(crate) use answer::{Answer, status_error};
pub(crate) use body::Body;
pub(crate) use send::{Authority, Lane, Request, Sent, url_host};
