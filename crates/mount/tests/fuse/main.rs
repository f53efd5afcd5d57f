//! FUSE sessions, judged by the kernel and by other programs that read through them.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod answers;
mod content;
mod ends;
mod killed;
mod mirror;
mod on_top;
mod served;
mod user;
