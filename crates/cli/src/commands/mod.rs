//! One module per command.

pub(crate) mod check;
pub(crate) mod convert;
pub(crate) mod daemon;
pub(crate) mod demo;
pub(crate) mod df;
mod dispatch;
pub(crate) mod doctor;
pub(crate) mod gc;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod map;
pub(crate) mod materialize;
pub(crate) mod metrics;
pub(crate) mod mount;
pub(crate) mod probe;
pub(crate) mod profile;
pub(crate) mod ps;
pub(crate) mod registry;
pub(crate) mod rm;
pub(crate) mod status;
pub(crate) mod umount;

pub(crate) use dispatch::run;
