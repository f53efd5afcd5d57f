//! Small files that belong to an image, each replaced whole.

use std::collections::BTreeSet;
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::layout::{UNFINISHED, create_dir, replace, replace_soon, sync_dir};

/// The most bytes of one file of an image. The largest such file is an image's metadata: a GiB holds
/// that of ten million files.
pub const IMAGE_FILE_BYTES_MAX: u64 = 1 << 30;

/// The directory of images.
#[derive(Debug)]
pub(crate) struct Images {
    dir: PathBuf,
    /// Files that were written and not made durable.
    soon: Mutex<BTreeSet<PathBuf>>,
}

impl Images {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            soon: Mutex::default(),
        }
    }

    pub(crate) fn dir(&self, image: &str) -> PathBuf {
        self.dir.join(encode(image))
    }

    pub(crate) fn file(&self, image: &str, file: &str) -> PathBuf {
        self.dir(image).join(encode(file))
    }

    pub(crate) fn put(&self, image: &str, file: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(image, file);
        check_size(&path, bytes)?;
        let dir = self.dir(image);
        let is_new = !dir.is_dir();
        create_dir(&dir)?;
        // One that was made soon is not durable yet.
        if is_new || self.soon.lock().iter().any(|path| path.starts_with(&dir)) {
            sync_dir(&self.dir)?;
        }
        replace(&path, bytes)
    }

    pub(crate) fn put_soon(&self, image: &str, file: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(image, file);
        check_size(&path, bytes)?;
        create_dir(&self.dir(image))?;
        // Remembered first: a synchronization that begins in between finds the old file or the new one.
        self.soon.lock().insert(path.clone());
        replace_soon(&path, bytes)?;
        self.soon.lock().insert(path);
        Ok(())
    }

    /// Makes durable what `before` does, and then the files that were put soon.
    pub(crate) fn sync(&self, before: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // Taken first: a file that is put while this runs may speak of a table that is written meanwhile.
        let paths = std::mem::take(&mut *self.soon.lock());
        let synced = before().and_then(|()| self.sync_files(&paths));
        if synced.is_err() {
            self.soon.lock().extend(paths);
        }
        synced
    }

    fn sync_files(&self, paths: &BTreeSet<PathBuf>) -> io::Result<()> {
        let mut dirs = BTreeSet::new();
        for path in paths {
            unless_removed(fs_err::File::open(path).and_then(|file| file.sync_data()))?;
            dirs.extend(path.parent());
        }
        for dir in &dirs {
            unless_removed(sync_dir(dir))?;
        }
        if dirs.is_empty() {
            return Ok(());
        }
        sync_dir(&self.dir)
    }

    pub(crate) fn read(&self, image: &str, file: &str) -> io::Result<Vec<u8>> {
        let path = self.file(image, file);
        let opened = fs_err::File::open(&path)?;
        if opened.metadata()?.len() > IMAGE_FILE_BYTES_MAX {
            return Err(too_large(&path));
        }
        let mut bytes = Vec::new();
        opened.take(IMAGE_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(&self.dir)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(decode));
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(crate) fn remove(&self, image: &str) -> io::Result<()> {
        let dir = self.dir(image);
        self.soon.lock().retain(|path| !path.starts_with(&dir));
        // Renamed first: an image is there whole, or not at all.
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", encode(image)));
        remove_dir_if_there(&unfinished)?;
        match fs_err::rename(&dir, &unfinished) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        sync_dir(&self.dir)?;
        remove_dir_if_there(&unfinished)
    }
}

fn remove_dir_if_there(dir: &Path) -> io::Result<()> {
    unless_removed(fs_err::remove_dir_all(dir))
}

/// A file whose image was removed needs not be durable.
fn unless_removed(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn check_size(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if u64::try_from(bytes.len()).is_ok_and(|bytes| bytes > IMAGE_FILE_BYTES_MAX) {
        return Err(too_large(path));
    }
    Ok(())
}

fn too_large(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!(
            "{} has more than {IMAGE_FILE_BYTES_MAX} bytes, which no image needs",
            path.display()
        ),
    )
}

/// The file name for a name: letters, digits, `-`, `_` and inner dots are themselves, all else is `%` and
/// two hexadecimal digits per byte. No name leads elsewhere, and none looks unfinished.
fn encode(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut encoded = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                encoded.push(char::from(byte));
            }
            b'.' if index > 0 => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

/// The name for a file name that [`encode`] made, nothing for any other.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let Some((digits, after)) = rest.split_at_checked(2) else {
            break;
        };
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    let name = String::from_utf8(bytes).ok()?;
    (encode(&name) == encoded).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/",
            "a/b",
            ".unfinished-x",
            "a\0b",
            "%2e",
        ] {
            let encoded = encode(name);
            assert!(
                !encoded.contains(['/', '\0']) && !encoded.starts_with('.'),
                "{encoded}"
            );
            assert_eq!(decode(&encoded).as_deref(), Some(name));
        }
        assert_eq!(encode("meta.erofs"), "meta.erofs");
    }

    #[test]
    fn files_of_others_are_not_images() {
        for encoded in [".unfinished-x", "%zz", "%2", "%2E", "%41", "lost+found"] {
            assert_eq!(decode(encoded), None, "{encoded}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_read_back(name in any::<String>()) {
            prop_assert_eq!(decode(&encode(&name)), Some(name));
        }
    }
}
