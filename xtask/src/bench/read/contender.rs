//! What reads are measured on.

use std::path::Path;

use anyhow::Result;

/// How a tree gets to be readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is a directory.
    Directory,
    /// It is mounted, with all its data in a local file.
    Local,
    /// It is mounted, and its data comes when it is read.
    Lazy,
}

/// Something that can make the image's tree readable.
pub(super) trait Contender {
    /// Its name in tables.
    fn name(&self) -> &str;

    /// What can be measured with it.
    fn kind(&self) -> Kind;

    /// Makes the tree readable; for lazy ones with nothing local but what `work`, an empty directory,
    /// has. This is timed.
    fn mount(&self, work: &Path) -> Result<Box<dyn Readable + '_>>;
}

/// A readable tree; what was mounted or started for it ends when it is dropped.
pub(super) trait Readable {
    /// Where the tree is.
    fn dir(&self) -> &Path;

    /// The processes that serve it.
    fn processes(&mut self) -> Result<Vec<u32>>;

    /// Waits until nothing is missing locally, now that everything was read.
    fn wait_until_complete(&self) -> Result<()>;

    /// Unmounts it and mounts it once more, with its server running; seconds of the latter, if that
    /// can be done.
    fn mount_again(&mut self) -> Result<Option<f64>>;
}
