//! Archives, and what comes out of them.

mod hostile;
mod raw;
mod read;
mod support;
mod write;
