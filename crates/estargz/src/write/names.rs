//! Names as the format spells them.

use super::error::WriteError;
use crate::apply::{LANDMARK, NO_LANDMARK};
use crate::document::TOC_NAME;
use crate::error::show_bytes;

/// A path without a slash at its start or end, dots and empty components; the root is empty.
///
/// The table is JSON, which has no bytes that are not UTF-8. Its other writer puts U+FFFD there: readers then
/// show a name that no unpacker makes, and two names can become one.
pub(super) fn normalize(path: &[u8], of: &[u8]) -> Result<String, WriteError> {
    let fail = |problem| {
        let path = show_bytes(of);
        WriteError::Inexpressible { path, problem }
    };
    let text = str::from_utf8(path)
        .map_err(|_| fail("its name, or that of a link's target, is not UTF-8"))?;
    let mut normal = String::with_capacity(text.len());
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                return Err(fail(
                    "its path, or that of a link's target, has \"..\" in it",
                ));
            }
            name => {
                if !normal.is_empty() {
                    normal.push('/');
                }
                normal.push_str(name);
            }
        }
    }
    Ok(normal)
}

/// As [`normalize`]; `None` for what no layer can have.
pub(super) fn normalize_wanted(path: &[u8]) -> Option<String> {
    normalize(path, path).ok()
}

/// What the names of whiteouts begin with: OCI image specification v1.1, "Image Layer Filesystem Changeset".
pub(super) const WHITEOUT: &str = ".wh.";

/// Whether this hides something of lower layers.
pub(super) fn is_whiteout(path: &str) -> bool {
    let name = path.rsplit('/').next();
    name.is_some_and(|name| name.starts_with(WHITEOUT))
}

/// What a whiteout hides: a path, or for that of a whole directory that directory.
pub(super) fn hidden_by(whiteout: &str) -> String {
    let (dir, name) = whiteout.rsplit_once('/').unwrap_or(("", whiteout));
    match name.strip_prefix(WHITEOUT) {
        Some(name) if !name.starts_with(WHITEOUT) => sibling(whiteout, name),
        _ => dir.to_owned(),
    }
}

/// Whether the format keeps this name for itself.
pub(super) fn is_reserved(name: &str) -> bool {
    [LANDMARK, NO_LANDMARK, TOC_NAME].contains(&name)
}

/// The paths of all directories above, nearest first; the root is the last.
pub(super) fn parents(path: &str) -> impl Iterator<Item = &str> {
    let up = |path: &str| -> Option<usize> {
        if path.is_empty() {
            return None;
        }
        Some(path.rfind('/').unwrap_or(0))
    };
    std::iter::successors(up(path), move |end| up(path.get(..*end)?))
        .filter_map(move |end| path.get(..end))
}

/// The path of a name in the directory that `path` is in.
pub(super) fn sibling(path: &str, name: &str) -> String {
    match path.rsplit_once('/') {
        Some((parent, _)) => format!("{parent}/{name}"),
        None => name.to_owned(),
    }
}

/// The path of a name in a directory.
pub(super) fn child(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        return name.to_owned();
    }
    format!("{directory}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_are_one() {
        for (path, expect) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a/./b/.", "a/b"),
            ("./", ""),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(normalize(path.as_bytes(), b"").unwrap(), expect);
        }
        for path in [&b"a/../b"[..], b"..", b"\xff"] {
            let error = normalize(path, b"the entry").unwrap_err();
            assert!(error.is_limit_of_format());
            assert!(error.to_string().starts_with("\"the entry\""), "{error}");
        }
    }

    #[test]
    fn parents_go_up_to_the_root() {
        let all = |path| parents(path).collect::<Vec<_>>();
        assert_eq!(all("a/b/c"), ["a/b", "a", ""]);
        assert_eq!(all("a"), [""]);
        assert_eq!(all(""), [""; 0]);
        assert_eq!(sibling("a/b/c", "d"), "a/b/d");
        assert_eq!(sibling("a", "d"), "d");
        assert_eq!(
            (child("", "a"), child("a", "b")),
            ("a".into(), "a/b".into())
        );
    }
}
