//! Results to standard output, words to standard error.

use std::io::{self, Write as _};

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
    let text = serde_json::to_string_pretty(value).context("write the result as JSON")?;
    line(&text)
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
}
