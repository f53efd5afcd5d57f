//! Converting: draught, and what others do to the same data.

mod contender;
mod conversions;
mod nydus;

pub(crate) use contender::{
    BATCHED, Contender, Input, ctr_remote, draught, inflating, nydus, zstd,
};
pub(crate) use conversions::{AGAIN_BELOW_S, Conversions, measure};
pub(crate) use nydus::NydusImage;
