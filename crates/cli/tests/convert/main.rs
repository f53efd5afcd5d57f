//! `draught convert`, as a person sees it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod cache;
mod formats;
mod killed;
mod stage;
