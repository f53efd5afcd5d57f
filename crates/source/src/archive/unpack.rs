//! Archives that are compressed as a whole.

use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use draught_codec::{DETECT_BYTES, LayerDecoder, LayerError, LayerKind, LayerLimits};

use super::reader::describe;
use crate::error::SourceError;

/// Bytes decompressed at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What a compressed archive may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Decompressed size in bytes: it has to fit on a disk that others use too.
    decoded_bytes_max: u64,
    /// Bytes up to which any ratio is taken: what a bomb may put on the disk.
    decoded_bytes_free: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            decoded_bytes_max: 64 << 30,
            decoded_bytes_free: 1 << 30,
        }
    }
}

/// Opens an archive. If it is compressed, what is opened is a file without a name that holds its content; it
/// goes when it is closed.
pub(super) fn open(
    path: &Path,
    scratch_dir: &Path,
    limit: Limit,
) -> Result<std::fs::File, SourceError> {
    let file = fs_err::File::open(path)?.into_file();
    // A pipe or directory has no place to read from; the reader of tars says so.
    let mut head = [0; DETECT_BYTES];
    let kind = match file.read_exact_at(&mut head, 0) {
        Ok(()) => LayerKind::detect(&head),
        Err(_) => LayerKind::Tar,
    };
    if kind == LayerKind::Tar {
        return Ok(file);
    }
    let wrong = |error: &LayerError| {
        let advice = match error {
            LayerError::TooLarge { .. } | LayerError::Bomb { .. } => {
                "; decompress it yourself if you trust it"
            }
            _ => "",
        };
        SourceError::Format {
            path: path.to_owned(),
            expected: "a docker archive",
            reason: format!("decompressing it failed: {}{advice}", describe(error)),
        }
    };
    let unwritable = |error: io::Error| {
        let message = format!(
            "failed to decompress {} into {} (set TMPDIR to a directory with room): {error}",
            path.display(),
            scratch_dir.display()
        );
        SourceError::from(io::Error::new(error.kind(), message))
    };
    let limits = LayerLimits {
        decoded_bytes_max: limit.decoded_bytes_max,
        decoded_bytes_free: limit.decoded_bytes_free,
        ..LayerLimits::default()
    };
    let mut decoder = LayerDecoder::new(file, limits).map_err(|error| wrong(&error))?;
    let mut out = tempfile::tempfile_in(scratch_dir).map_err(unwritable)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = decoder.decode(&mut piece).map_err(|error| wrong(&error))?;
        let Some(piece) = piece.get(..bytes).filter(|piece| !piece.is_empty()) else {
            break;
        };
        out.write_all(piece).map_err(unwritable)?;
    }
    out.rewind().map_err(unwritable)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn an_archive_over_the_limit_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zeros");
        fs_err::write(&path, vec![0; 3 << 20]).unwrap();
        assert!(Command::new("gzip").arg(&path).status().unwrap().success());
        let path = path.with_extension("gz");
        let limit = |decoded_bytes_max, decoded_bytes_free| Limit {
            decoded_bytes_max,
            decoded_bytes_free,
        };
        let mut read = Vec::new();
        open(&path, dir.path(), limit(3 << 20, 3 << 20))
            .unwrap()
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, vec![0; 3 << 20]);
        for (limit, expect) in [
            (limit(2 << 20, 2 << 20), "2097152 bytes"),
            (limit(1 << 40, 1 << 20), "bomb"),
        ] {
            let error = open(&path, dir.path(), limit).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert!(error.contains("decompress it yourself"), "{error}");
        }
        let bytes = fs_err::read(&path).unwrap();
        fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = open(&path, dir.path(), Limit::default()).unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }
}
