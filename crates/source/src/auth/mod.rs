//! Being let in: challenges, tokens, and when they end.

mod challenge;
mod login;
mod token;

pub(crate) use login::{CANDIDATES_MAX, Door, Login, Scope};
