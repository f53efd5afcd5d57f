//! Results to standard output, words to standard error.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Who read our output has gone away, as `draught … | head` does: no reason to complain.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(crate) struct Closed;

/// Writes text, a part of the result, to standard output.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        written => written.context("write the result"),
    }
}

/// Writes one line of the result.
pub(crate) fn line(text: &str) -> Result<()> {
    data(&format!("{text}\n"))
}

/// Writes the result as one JSON document, for programs.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    data(&json_text(value)?)
}

/// The result as one JSON document that ends its line.
pub(crate) fn json_text<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).context("write the result as JSON")?;
    Ok(format!("{text}\n"))
}

/// Writes the result to a file, `-` being standard output.
pub(crate) fn to(file: &Path, text: &str) -> Result<()> {
    if file == Path::new("-") {
        return data(text);
    }
    write(file, text).with_context(|| format!("write {}", file.display()))
}

/// Replaces a file as a whole: whoever looks sees the old one or the new one.
fn write(file: &Path, text: &str) -> Result<()> {
    // What a link names is replaced, not the link.
    let target = fs_err::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if fs_err::metadata(&target).is_ok_and(|it| !it.is_file()) {
        // A device or a pipe must not be replaced by a file. A directory gives an error here.
        return Ok(fs_err::write(&target, text)?);
    }
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut scratch = tempfile::Builder::new()
        .prefix(".draught-")
        // As for any new file; the umask takes from it.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir.unwrap_or(Path::new(".")))?;
    scratch.write_all(text.as_bytes())?;
    scratch.persist(&target)?;
    Ok(())
}

/// Says something to the person who is watching. That it cannot be said is no failure.
pub(crate) fn say(words: &str) {
    writeln!(io::stderr().lock(), "{words}").unwrap_or_default();
}

/// Rows in columns, each as wide as its widest cell; columns after the first to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut written = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                written.push_str(&format!("{cell:<width$}"));
            } else {
                written.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), "100".to_owned()],
        ];
        assert_eq!(table(&rows), "a       1\nlong  100\n");
    }

    #[test]
    fn files_are_replaced_and_links_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("map.svg"), dir.path().join("link"));
        std::os::unix::fs::symlink("map.svg", &link).unwrap();
        for (path, text) in [(&file, "one"), (&link, "two")] {
            to(path, text).unwrap();
            assert_eq!(fs_err::read_to_string(&file).unwrap(), text);
        }
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        let left = fs_err::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "nothing temporary stays");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("no/map.svg"), dir.path().to_owned()] {
            let error = format!("{:#}", to(&path, "text").unwrap_err());
            assert!(
                error.starts_with(&format!("write {}: ", path.display())),
                "{error}"
            );
        }
        to(Path::new("/dev/null"), "text").unwrap();
        assert!(!fs_err::metadata("/dev/null").unwrap().is_file());
    }
}
