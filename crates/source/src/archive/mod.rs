//! Docker archives: the tar that `docker save`, `podman save` and `skopeo copy … docker-archive:` write.
//!
//! Origin: moby's image/spec, v1.2 and what current writers do: `manifest.json` lists images, each with the
//! path of its configuration and of its layers; layers are tars, sometimes compressed.
//!
//! There is no manifest in it that has a digest, so one is made, the same for the same archive. Only reading
//! is supported: the format has no place for layers that are drawn lazily, and `oci:` holds everything else.

mod image;
mod reader;

pub use image::Archive;
