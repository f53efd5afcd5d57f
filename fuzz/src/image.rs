//! EROFS images.

use draught_erofs::{Image, Limits, ReadError, read_tree};

/// Reading ends, with a tree whose every node is of a size that its limits allow.
pub(crate) fn erofs(data: &[u8]) {
    let Ok(image) = Image::open(data) else { return };
    let limits = Limits {
        names_max: 1 << 12,
        directory_bytes_max: 1 << 20,
        chunk_refs_max: 1 << 12,
        loose_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let read = read_tree::<ReadError>(&image, &limits, &mut |_| Ok(Box::default()));
    if let Ok(read) = read {
        assert!(
            read.tree.walk().count() <= 1 << 13,
            "more names than the limit"
        );
    }
}
