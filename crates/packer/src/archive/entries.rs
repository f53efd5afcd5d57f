//! What of an archive is not part of the image.

/// Whether an entry is one that eStargz adds to a layer: its table of contents and its marks.
///
/// Origin: `containerd/stargz-snapshotter: docs/estargz.md`.
pub(crate) fn is_of_estargz(path: &[u8]) -> bool {
    let mut names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".");
    let name = names.next();
    names.next().is_none()
        && matches!(
            name,
            Some(b"stargz.index.json" | b".prefetch.landmark" | b".no.prefetch.landmark")
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_at_the_root_are_of_the_format() {
        for path in [
            "stargz.index.json",
            "./.prefetch.landmark",
            "/.no.prefetch.landmark",
        ] {
            assert!(is_of_estargz(path.as_bytes()), "{path}");
        }
        for path in [
            "a/stargz.index.json",
            "stargz.index.json/a",
            "",
            ".",
            "stargz",
        ] {
            assert!(!is_of_estargz(path.as_bytes()), "{path}");
        }
    }
}
