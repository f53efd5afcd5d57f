//! Docker archives: the tar that `docker save`, `podman save` and `skopeo copy … docker-archive:` write.
//!
//! Origin: moby's image/spec, v1.2 and what current writers do: `manifest.json` lists images, each with the
//! path of its configuration and of its layers; layers are tars, sometimes compressed. Since docker 25 the
//! archive is an OCI layout too, with `manifest.json` beside it for older readers.
//!
//! Reading takes the layout where there is one, so that nothing is lost: manifests with their digests, media
//! types and annotations, indexes for several platforms. Without one there is no manifest that has a digest, so
//! one is made, the same for the same archive. An archive that is compressed as a whole (`docker save | gzip`)
//! is decompressed to a file without a name first.
//!
//! Writing makes both. Blobs are streamed into a file beside the target, which takes the target's place once an
//! image in it has a tag, and is complete then. The same pushes in the same order give the same bytes.

mod image;
mod listed;
mod names;
mod reader;
mod saved;
mod unpack;
mod writer;

pub use image::Archive;
