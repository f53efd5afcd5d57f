//! Containers on lazily pulled images, beside containerd's own overlays.

mod calls;
mod command;
mod layers;
mod metadata;
mod program;
mod side;
mod start;

pub(crate) use command::{Args, run};
