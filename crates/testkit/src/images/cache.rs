//! What is expensive is made once.

use std::path::{Path, PathBuf};

use draught_digest::Digest;
use rustix::fs::FlockOperation;

use crate::need;

/// The directory `images/NAME-DIGEST` of the cache, the digest that of `recipe`. If it is not
/// there, `make` fills it first.
///
/// # Errors
///
/// If the cache can't be written to, or `make` fails; nothing is kept then.
pub fn cached(
    name: &str,
    recipe: &[u8],
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let images = need::cache_dir().join("images");
    fs_err::create_dir_all(&images)?;
    let digest = Digest::sha256(recipe).hex();
    let kept = images.join(format!("{name}-{}", &digest[..16]));
    if kept.exists() {
        return Ok(kept);
    }
    // Held until the end of this function, by whoever is first.
    let lock = fs_err::File::create(images.join(format!(".{name}.lock")))?;
    rustix::fs::flock(lock.file(), FlockOperation::LockExclusive)?;
    if kept.exists() {
        return Ok(kept);
    }
    let made = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempdir_in(&images)?;
    make(made.path())?;
    fs_err::rename(made.keep(), &kept)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_not_made_again_and_failures_leave_nothing() {
        let recipe = format!("a test's, of process {}", std::process::id());
        let failed = cached("selftest", recipe.as_bytes(), |_| anyhow::bail!("no"));
        assert!(failed.is_err());
        let make = |dir: &Path| Ok(fs_err::write(dir.join("x"), b"1")?);
        let kept = cached("selftest", recipe.as_bytes(), make).unwrap();
        let again = cached("selftest", recipe.as_bytes(), |_| {
            anyhow::bail!("made again")
        });
        assert_eq!(again.unwrap(), kept);
        assert_eq!(fs_err::read(kept.join("x")).unwrap(), b"1");
        fs_err::remove_dir_all(kept).unwrap();
    }
}
