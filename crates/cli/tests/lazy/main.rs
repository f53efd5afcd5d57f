//! Images mounted lazily by the real program, read by real readers, while everything around them fails.

mod full_disk;
mod harness;
mod heals;
mod serves;
mod survives;
