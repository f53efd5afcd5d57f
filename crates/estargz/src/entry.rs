//! Fields of entries: from text to what the model has.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use draught_digest::Digest;
use draught_tree::{Meta, Xattrs};

use crate::document::RawEntry;
use crate::error::{ReadError, show};
use crate::time;

/// All permission bits.
const MODE_MASK: u64 = 0o7777;

/// The name of an entry that lies at the root of the layer.
pub(crate) fn name_at_root(path: &str) -> Option<&str> {
    let mut names = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".");
    let name = names.next();
    name.filter(|_| names.next().is_none())
}

/// A digest, if there is one.
pub(crate) fn digest(path: &str, text: &str) -> Result<Option<Digest>, ReadError> {
    if text.is_empty() {
        return Ok(None);
    }
    let digest = text.parse().map_err(|source| ReadError::Digest {
        path: show(path),
        source,
    })?;
    Ok(Some(digest))
}

/// What every inode has.
pub(crate) fn meta(raw: &RawEntry<'_>) -> Result<Meta, ReadError> {
    let problem = |problem| ReadError::Entry {
        path: show(&raw.name),
        problem,
    };
    let (mtime, mtime_nsec) = if raw.modified.is_empty() {
        (0, 0)
    } else {
        let time = time::parse(&raw.modified);
        time.ok_or_else(|| problem("its time of modification can't be read"))?
    };
    let mut xattrs = Xattrs::new();
    for (name, value) in raw.xattrs.iter().flatten() {
        let value = BASE64.decode(value.as_bytes());
        let value = value.map_err(|_| problem("an extended attribute of it is not base64"))?;
        xattrs.push((name.as_bytes().into(), value.into()));
    }
    Ok(Meta {
        mode: u16::try_from(raw.mode & MODE_MASK).unwrap_or_default(),
        uid: raw.uid,
        gid: raw.gid,
        mtime,
        mtime_nsec,
        xattrs,
    })
}
