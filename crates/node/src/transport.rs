//! How reads of what is missing come to the worker.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way for the kernel to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// Kernel EROFS over the devices, marked for pre-content events: what is complete costs nothing.
    Fanotify,
    /// Kernel EROFS over devices that a FUSE filesystem exports: metadata and page cache in the kernel, all
    /// else through the worker.
    Fileio,
    /// The tree itself through FUSE: works for an ordinary user.
    Fuse,
}

impl Transport {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Fanotify, Self::Fileio, Self::Fuse];

    /// Its name, as it is given and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fanotify => "fanotify",
            Self::Fileio => "fileio",
            Self::Fuse => "fuse",
        }
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Whether a session of ours serves it, rather than events.
    pub(crate) const fn has_session(self) -> bool {
        !matches!(self, Self::Fanotify)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
