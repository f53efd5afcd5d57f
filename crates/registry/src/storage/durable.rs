//! Files and directories that are still there after a power cut.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Makes the directory `dir` and the missing ones above it, each entered durably in its parent.
pub(super) fn create_dir_all(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.is_dir()).collect();
    for dir in missing.into_iter().rev() {
        match fs_err::create_dir(dir) {
            Ok(()) => sync_dir(parent(dir))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the entries of `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs_err::File::open(dir)?.sync_all()
}

/// Puts `bytes` into `file` in one step: a reader sees all of them or what was there before.
pub(super) fn write(staging: &Path, file: &Path, bytes: &[&[u8]]) -> io::Result<()> {
    let mut staged = NamedTempFile::new_in(staging)?;
    for bytes in bytes {
        staged.write_all(bytes)?;
    }
    rename(staged, file)
}

/// Moves a file that was written elsewhere to its place.
pub(super) fn rename(staged: NamedTempFile, file: &Path) -> io::Result<()> {
    staged.as_file().sync_all()?;
    staged.persist(file).map_err(|error| error.error)?;
    sync_dir(parent(file))
}

/// Removes `file`; whether it was there.
pub(super) fn remove(file: &Path) -> io::Result<bool> {
    match fs_err::remove_file(file) {
        Ok(()) => sync_dir(parent(file)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory that `path` is an entry of.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The result, or nothing if the file is not there.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in `dir`, sorted; none if it is not there.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = found(fs_err::read_dir(dir))? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        // What is not UTF-8 was not put there by us.
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// The directories below `dir` that bear a name of `wanted`, as paths.
pub(super) fn subdirs(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    Ok(names(dir)?
        .into_iter()
        .filter(|name| wanted(name))
        .map(|name| dir.join(name))
        .filter(|path| path.is_dir())
        .collect())
}
