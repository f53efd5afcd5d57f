//! This crate is what decoders must hold for any bytes at all.
//!
//! Each [`Target`] takes bytes and panics if an invariant is broken. libFuzzer runs them for hours
//! (`libfuzzer/`, see its `README.md`); `tests/short.rs` runs each for a moment in every test run, from
//! the same seeds, with the same mutations every time, and over everything ever found
//! (`artifacts/TARGET/`).
#![forbid(unsafe_code)]

mod archive;
mod cache;
mod document;
mod estargz;
mod filters;
mod hosts;
mod image;
pub mod mutate;
mod profile;
mod rafs;
mod seed;

/// A decoder and inputs to begin with.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its directory of artifacts.
    pub name: &'static str,
    /// Checks one input. Panics if an invariant is broken.
    pub check: fn(&[u8]),
    /// Inputs that are well-formed, for mutations to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "tar",
        check: archive::tar,
        seeds: seed::tars,
    },
    Target {
        name: "layer",
        check: archive::layer,
        seeds: seed::layers,
    },
    Target {
        name: "extent",
        check: archive::extent,
        seeds: seed::extents,
    },
    Target {
        name: "document",
        check: document::document,
        seeds: seed::documents,
    },
    Target {
        name: "location",
        check: document::location,
        seeds: seed::locations,
    },
    Target {
        name: "profile",
        check: profile::profile,
        seeds: seed::profiles,
    },
    Target {
        name: "erofs",
        check: image::erofs,
        seeds: seed::erofs_images,
    },
    Target {
        name: "bootstrap",
        check: rafs::bootstrap,
        seeds: seed::bootstraps,
    },
    Target {
        name: "estargz",
        check: estargz::layer,
        seeds: estargz::seeds,
    },
    Target {
        name: "blob",
        check: rafs::blob,
        seeds: seed::blobs,
    },
    Target {
        name: "record",
        check: cache::record,
        seeds: cache::records,
    },
    Target {
        name: "cache",
        check: cache::document,
        seeds: cache::documents,
    },
    Target {
        name: "hosts",
        check: hosts::file,
        seeds: hosts::seeds,
    },
    Target {
        name: "filters",
        check: filters::filters,
        seeds: filters::seeds,
    },
];
