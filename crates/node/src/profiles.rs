//! What starts of images touch: recorded here, or brought from another node.
//!
//! A recording belongs to an image; a profile to the repository too, for the next version of an image mostly
//! starts like this one. Profiles are kept as they are exported, one for each image and one for each
//! repository, in the state directory's `profiles`.

use std::io;
use std::path::PathBuf;

use draught_digest::Digest;
use draught_oci::Location;
use draught_profile::{Limits, Profile};
use draught_tree::{ChunkId, Tree};
use parking_lot::Mutex;

use crate::layout::Layout;
use crate::state::{Origin, replace};

/// Bytes of what a profile names that are prefetched and placed together: more is no start.
pub(crate) const START_BYTES_MAX: u64 = 512 << 20;
/// How long a start is taken to last, in milliseconds from the first touch: what comes later is work.
pub(crate) const START_MS: u64 = 300_000;
/// Profiles that are kept; the oldest goes when there are more. Each has some 100 KB.
const PROFILES_MAX: usize = 1000;

/// The directory of profiles.
#[derive(Debug)]
pub(crate) struct Profiles {
    dir: PathBuf,
    /// Held while files are written or removed.
    writing: Mutex<()>,
}

impl Profiles {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            dir: layout.profiles(),
            writing: Mutex::new(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let digest = Digest::sha256(name.as_bytes()).hex();
        self.dir.join(format!("{digest}.profile"))
    }

    fn read(&self, name: &str) -> Option<Profile> {
        let bytes = fs_err::read(self.path(name)).ok()?;
        match Profile::parse(&bytes, &Limits::default()) {
            Ok(profile) => Some(profile),
            Err(error) => {
                tracing::warn!(%error, name, "a profile can't be used");
                None
            }
        }
    }

    /// The chunks that a start of an image is known to touch, in that order.
    pub(crate) fn hot(&self, origin: &Origin, image: &Digest, tree: &Tree) -> Vec<ChunkId> {
        let names = [Some(image.to_string()), repository(&origin.reference)];
        let mut known = names.into_iter().flatten();
        let Some(mut profile) = known.find_map(|name| self.read(&name)) else {
            return Vec::new();
        };
        profile.touches.retain(|touch| touch.at_ms <= START_MS);
        let resolved = profile.resolve(tree);
        tracing::info!(
            reference = origin.reference,
            chunks = resolved.chunks.len(),
            unknown_paths = resolved.unknown_paths,
            "a profile says what a start of this image touches"
        );
        resolved.chunks
    }

    /// Keeps a profile of an image, and as that of its repository.
    pub(crate) fn keep(
        &self,
        reference: &str,
        image: Option<&str>,
        profile: &Profile,
    ) -> io::Result<()> {
        let _alone = self.writing.lock();
        fs_err::create_dir_all(&self.dir)?;
        let text = profile.encode();
        let names = [image.map(str::to_owned), repository(reference)];
        for name in names.into_iter().flatten() {
            replace(&self.path(&name), &text)?;
        }
        self.thin()
    }

    /// Removes the oldest profiles when there are too many.
    fn thin(&self) -> io::Result<()> {
        let mut all = Vec::new();
        for entry in fs_err::read_dir(&self.dir)? {
            let entry = entry?;
            all.push((entry.metadata()?.modified()?, entry.path()));
        }
        all.sort_unstable();
        let excess = all.len().saturating_sub(PROFILES_MAX);
        for (_, path) in all.into_iter().take(excess) {
            fs_err::remove_file(path)?;
        }
        Ok(())
    }
}

/// What versions of an image have in common: the reference without tag and digest.
fn repository(reference: &str) -> Option<String> {
    match reference.parse().ok()? {
        Location::Registry(reference) => {
            Some(format!("{}/{}", reference.host(), reference.repository()))
        }
        Location::OciLayout { dir, .. } => Some(dir.display().to_string()),
        Location::DockerArchive { .. } | Location::Directory { .. } => None,
    }
}
