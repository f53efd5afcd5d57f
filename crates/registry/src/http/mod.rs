//! The API over HTTP.

mod answer;
mod blob;
mod body;
mod connection;
mod error;
mod listing;
mod manifest;
mod range;
mod route;
mod serve;
mod text;
mod upload;

pub use serve::{Handle, serve};
