//! Content that becomes an archive.

use std::io::{self, Write};

use draught_tree::EntryKind;

use crate::layer::{Content, PackLayerError};

/// Bytes of a file that are read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Entries and bytes of files that were written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) file_bytes: u64,
}

/// Writes an archive of all that `content` gives, but for sockets, which archives can't have.
pub(super) fn archive(
    content: &mut impl Content,
    out: impl Write,
    wants: impl Fn(&[u8]) -> bool,
) -> Result<Counts, PackLayerError> {
    let failed = |source| PackLayerError::Archive { source };
    let mut writer = draught_tar::Writer::new(io::BufWriter::with_capacity(BUFFER_BYTES, out));
    let mut counts = Counts::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Some(entry) = content.next_entry()? {
        if entry.kind == EntryKind::Socket || !wants(&entry.path) {
            continue;
        }
        writer.entry(&entry).map_err(failed)?;
        counts.entries += 1;
        let EntryKind::File { bytes, .. } = entry.kind else {
            continue;
        };
        counts.file_bytes = counts.file_bytes.saturating_add(bytes);
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = content.read_data(buffer.get_mut(..most).unwrap_or_default())?;
            if read == 0 {
                return Err(PackLayerError::Short {
                    path: String::from_utf8_lossy(&entry.path).into_owned(),
                    missing_bytes: left,
                });
            }
            let piece = buffer.get(..read).unwrap_or_default();
            writer.data(piece).map_err(failed)?;
            left = left.saturating_sub(read as u64);
        }
    }
    writer.finish().map_err(failed)?;
    Ok(counts)
}
