//! An S3 server in memory. The protocol and the check of every signature are those of the crate `s3s`;
//! what is here keeps objects and uploads, and shows them to tests.

mod keep;
mod server;

pub use server::S3Server;
