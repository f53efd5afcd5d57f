//! Archives, layers and extents.

use std::io::Read as _;

use draught_codec::{Decoder, LayerDecoder, LayerLimits};
use draught_tar::{Reader, Writer};
use draught_tree::{Compression, Entry, EntryKind, Limits, Tree};

/// Bytes of content or output after which an input has shown enough.
const BYTES_MAX: usize = 1 << 22;

/// Limits so small that reaching them is quick.
fn tar_limits() -> draught_tar::Limits {
    draught_tar::Limits {
        extended_bytes_max: 1 << 16,
        sparse_pieces_max: 1 << 10,
        file_bytes_max: 1 << 22,
        hole_bytes_max: 1 << 22,
        ..draught_tar::Limits::default()
    }
}

/// Reading ends; a file has exactly the bytes that its entry says; entries can be applied or are
/// refused; what was read, written out again, reads the same.
pub(crate) fn tar(data: &[u8]) {
    let mut reader = Reader::new(data, tar_limits());
    let mut tree = Tree::new();
    tree.begin_layer();
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut whole = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        let mut content = Vec::new();
        if reader.read_to_end(&mut content).is_err() {
            break;
        }
        let bytes = match &entry.kind {
            EntryKind::File { bytes, .. } => usize::try_from(*bytes).unwrap_or(usize::MAX),
            _ => 0,
        };
        assert_eq!(
            content.len(),
            bytes,
            "a file has other bytes than its entry says"
        );
        whole += bytes;
        if tree.apply(entry.clone(), &Limits::default()).is_ok() {
            entries.push((entry, content));
        }
        if whole > BYTES_MAX {
            break;
        }
    }
    assert!(
        tree.walk().count() <= tree.arena_len() * 2 + entries.len(),
        "names out of nothing"
    );
    again(&entries);
}

fn again(entries: &[(Entry, Vec<u8>)]) {
    let mut writer = Writer::new(Vec::new());
    let mut written = Vec::new();
    for (entry, content) in entries {
        // What a name may hold is more than an archive can: those are refused before a byte is
        // written.
        if writer.entry(entry).is_ok() {
            writer.data(content).expect("a file's own content fits");
            written.push(entry);
        }
    }
    let bytes = writer.finish().expect("every file is complete");
    let mut reader = Reader::new(&*bytes, draught_tar::Limits::default());
    for entry in written {
        let read = reader.next_entry().expect("what we write can be read");
        let read = read.expect("no entry is lost");
        assert_eq!(read.kind, entry.kind);
        if !matches!(entry.kind, EntryKind::HardLink(_)) {
            assert_eq!(read.meta, entry.meta);
        }
    }
}

/// Decoding ends, within its limit.
pub(crate) fn layer(data: &[u8]) {
    let limits = LayerLimits {
        decoded_bytes_max: BYTES_MAX as u64,
        decoded_bytes_free: 1 << 16,
        window_log_max: 20,
        ..LayerLimits::default()
    };
    let Ok(mut decoder) = LayerDecoder::new(data, limits) else {
        return;
    };
    let mut out = vec![0; 1 << 15];
    let mut decoded = 0;
    while let Ok(bytes) = decoder.decode(&mut out) {
        if bytes == 0 {
            break;
        }
        decoded += bytes;
    }
    assert!(decoded <= BYTES_MAX, "more than the limit came out");
}

/// An extent decodes to exactly what is asked for, or not at all. The first byte chooses the
/// compression, the next two the size.
pub(crate) fn extent(data: &[u8]) {
    let [kind, low, high, stored @ ..] = data else {
        return;
    };
    let compression = match kind % 4 {
        0 => Compression::None,
        1 => Compression::Lz4Block,
        2 => Compression::Zstd,
        _ => Compression::Gzip,
    };
    let wanted = u32::from(u16::from_le_bytes([*low, *high]));
    let mut out = Vec::new();
    let decoded = Decoder::new().decode(compression, stored, wanted, &mut out);
    let expected = if decoded.is_ok() { wanted as usize } else { 0 };
    assert_eq!(out.len(), expected);
}
