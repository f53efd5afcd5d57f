//! What can go wrong when something is asked of the daemon.

use std::io;
use std::path::PathBuf;

use crate::attach::AttachError;
use crate::transport::Transport;

/// Why something could not be mounted, unmounted, stopped or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MountError {
    #[error("failed to attach {reference}")]
    Attach {
        reference: String,
        source: Box<AttachError>,
    },
    #[error("{dir:?} is not an existing directory: make it first")]
    NoDirectory { dir: PathBuf },
    #[error("{reference} is mounted on {dir:?} already: unmount it first")]
    Occupied { dir: PathBuf, reference: String },
    #[error("something else is mounted on top of it on {dir:?}: unmount that first")]
    Covered { dir: PathBuf },
    #[error("the daemon is stopping: try again when it is gone")]
    Stopping,
    #[error("nothing of this daemon is mounted on {dir:?}")]
    NotMounted { dir: PathBuf },
    #[error("{dir:?} is in use: end what uses it first")]
    Busy {
        dir: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "{reference}, unmounted from {dir:?}, is still in use elsewhere, such as in a container"
    )]
    Lingering { dir: PathBuf, reference: String },
    #[error("failed to mount on {dir:?}")]
    Mount {
        dir: PathBuf,
        source: Box<draught_mount::MountError>,
    },
    #[error("failed to mount on {dir:?} through FUSE")]
    Fuse {
        dir: PathBuf,
        source: Box<draught_mount::fuse::FuseError>,
    },
    #[error("failed to serve a mount through FUSE")]
    Session(#[source] io::Error),
    #[error("{transport} does not work here: {why}")]
    Transport { transport: Transport, why: String },
    #[error("nothing can be mounted here: {why}")]
    NoTransport { why: String },
    #[error("failed to read what the store keeps of the image")]
    Kept(#[source] io::Error),
    #[error("there is no image {reference} in the store: \"draught df\" lists what there is")]
    NoImage { reference: String },
    #[error("{reference} is mounted on {dir:?}: unmount it first")]
    Mounted { dir: PathBuf, reference: String },
    #[error("nothing of {reference} is mounted: \"draught ps\" lists what is")]
    NotLive { reference: String },
    #[error("failed to remove an image or a device from the store")]
    Remove(#[source] io::Error),
    #[error("failed to look at the store's files")]
    Usage(#[source] io::Error),
    #[error("failed to read the image's metadata")]
    Metadata(#[source] draught_erofs::ReadError),
    #[error("the profile can't be used")]
    Profile(#[source] draught_profile::ParseError),
    #[error("nothing was recorded of {reference} yet: run something in it first")]
    NothingRecorded { reference: String },
    #[error("failed to open a device in the store")]
    Device(#[source] draught_store::DeviceError),
    #[error("failed to mark a device for events")]
    Mark(#[source] io::Error),
    #[error("failed to tell the keeper")]
    Keeper(#[source] io::Error),
    #[error("failed to save the list of mounts")]
    State(#[source] io::Error),
    #[error("failed to open the new program")]
    Executable(#[source] io::Error),
    #[error("failed to start a thread for this")]
    Thread(#[source] io::Error),
    #[error("the daemon failed inside: its log says more")]
    Crashed,
}
