//! This crate is the node's chunk store: sparse device files and the presence of their blocks, durable in the right order.
#![forbid(unsafe_code)]
