//! Headers of entries as the layer's archive has them.

use draught_tar::{Extra, Reader, Writer};
use draught_tree::{Entry, EntryKind};

use super::error::WriteError;
use super::names;
use crate::error::show_bytes;

/// An entry's headers. All that unpackers understand is written anew, in one dialect, and what they
/// don't is passed on; of a sparse file nothing is left but its size: its holes are zeros in the layer.
pub(super) fn encode(
    entry: &Entry,
    extra: &Extra,
    limits: &draught_tar::Limits,
) -> Result<Vec<u8>, WriteError> {
    let mut headers = Vec::new();
    let mut writer = Writer::new(&mut headers);
    writer.entry_with(entry, extra).map_err(WriteError::Entry)?;
    // An extended header, its own header and the entry's.
    let bytes_max = limits.extended_bytes_max.saturating_add(2 << 10);
    if headers.len() > bytes_max {
        return Err(WriteError::Inexpressible {
            path: show_bytes(&entry.path),
            problem: "its headers, written anew, are longer than unpackers take",
        });
    }
    Ok(headers)
}

/// Lets an entry's headers say another path, or lead to another target, if they do not say these.
pub(super) fn edit(
    headers: Vec<u8>,
    limits: &draught_tar::Limits,
    path: &str,
    target: Option<&str>,
) -> Result<Vec<u8>, WriteError> {
    let mut reader = Reader::new(&headers[..], *limits);
    let entry = reader.next_entry().map_err(WriteError::Archive)?;
    let Some(mut entry) = entry else {
        return Ok(headers);
    };
    let mut same = says(&entry.path, path);
    if !same {
        entry.path = path.as_bytes().into();
    }
    if let (EntryKind::HardLink(old), Some(target)) = (&mut entry.kind, target)
        && !says(old, target)
    {
        same = false;
        *old = target.as_bytes().into();
    }
    if same {
        return Ok(headers);
    }
    encode(&entry, reader.extra(), limits)
}

fn says(spelled: &[u8], path: &str) -> bool {
    names::normalize_wanted(spelled).is_some_and(|normal| normal == path)
}
