//! One module per command.

pub(crate) mod check;
pub(crate) mod convert;
pub(crate) mod daemon;
pub(crate) mod demo;
mod dispatch;
pub(crate) mod inspect;
pub(crate) mod mount;
pub(crate) mod probe;
pub(crate) mod ps;
pub(crate) mod registry;
pub(crate) mod umount;

pub(crate) use dispatch::run;
