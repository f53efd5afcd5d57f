//! What a worker must know of the one before it: which images are mounted where.
//!
//! One JSON file, replaced atomically. It never holds a secret: of credentials it has the paths of the
//! files that hold them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// The version that is written.
const VERSION: u32 = 1;

/// Where an image comes from, and what is needed to ask there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The reference as the user gave it.
    pub reference: String,
    /// Hosts that may be asked without TLS, besides loopback.
    pub plain_http: Vec<String>,
    /// Files of credentials to look into, in order; empty: the usual ones of the daemon's user.
    pub credentials: Vec<PathBuf>,
    /// Where blobs are that are no layers of the manifest, as the user gave it; the daemon's environment has
    /// the credentials for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_backend: Option<String>,
}

/// One live mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRecord {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The image's name in the store.
    pub image: String,
    /// Where it comes from.
    pub origin: Origin,
    /// How it is served.
    pub transport: String,
    /// Under which key the keeper holds the descriptor of its session, if one serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Whether all of it is to be fetched in the background.
    #[serde(default)]
    pub prefetch_all: bool,
    /// When it was mounted, in seconds since 1970.
    pub since: u64,
    /// The file of its metadata image: whoever uses the mount has it open.
    pub metadata: PathBuf,
    /// Whether it was unmounted, but is still in use somewhere else, such as in another mount namespace.
    pub detached: bool,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// The boot in which the mounts were made; in another one there are none.
    pub(crate) boot_id: String,
    pub(crate) mounts: Vec<MountRecord>,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The identity of this boot.
///
/// # Errors
/// What reading it says.
pub fn boot_id() -> io::Result<String> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

impl State {
    pub(crate) fn empty(boot_id: String) -> Self {
        Self {
            version: VERSION,
            boot_id,
            mounts: Vec::new(),
        }
    }

    /// The state as the last worker left it. None: there was none, or it was in another boot.
    pub(crate) fn load(layout: &Layout, boot_id: &str) -> io::Result<Option<Self>> {
        let bytes = match fs_err::read(layout.mounts()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        if state.version != VERSION {
            let text = format!(
                "mounts.json has version {}, expected {VERSION}",
                state.version
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(state).filter(|state| state.boot_id == boot_id))
    }

    pub(crate) fn save(&self, layout: &Layout) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        replace(&layout.mounts(), &bytes)
    }
}

/// Replaces a file so that, whatever happens, either the old or the new content is there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs_err::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_another_boot_are_not_believed() {
        let scratch = tempfile::tempdir().unwrap();
        let layout = Layout::new(scratch.path());
        assert_eq!(State::load(&layout, "a").unwrap(), None);
        let state = State::empty("a".to_owned());
        state.save(&layout).unwrap();
        assert_eq!(State::load(&layout, "a").unwrap(), Some(state));
        assert_eq!(State::load(&layout, "b").unwrap(), None);
    }

    #[test]
    fn a_torn_state_is_an_error_and_not_an_empty_one() {
        let scratch = tempfile::tempdir().unwrap();
        let layout = Layout::new(scratch.path());
        fs_err::write(layout.mounts(), "{\"version\":1,").unwrap();
        assert!(State::load(&layout, "a").is_err());
    }
}
