//! What a part of the benchmark found.

use serde_json::{Value, json};

use super::bar::Bar;
use super::sheet::Sheet;

/// Tables, bars and what has to be known about them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Sentences on how it was measured, or why not.
    pub(crate) notes: Vec<String>,
    /// The tables.
    pub(crate) sheets: Vec<Sheet>,
    /// The bars.
    pub(crate) bars: Vec<Bar>,
}

impl Report {
    /// What is left to say of a part that failed.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self {
            notes: vec![format!("Failed to {error:#}.")],
            ..Self::default()
        }
    }

    /// For people, in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let notes = self.notes.join(" ");
        let sheets = self.sheets.iter().map(Sheet::markdown);
        let mut paragraphs: Vec<String> = sheets.collect();
        if !notes.is_empty() {
            paragraphs.insert(0, format!("{notes}\n"));
        }
        if !self.bars.is_empty() {
            let lines: Vec<String> = self.bars.iter().map(Bar::line).collect();
            paragraphs.push(format!("{}\n", lines.join("\n")));
        }
        paragraphs.join("\n")
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let tables: Vec<Value> = self.sheets.iter().map(Sheet::json).collect();
        let bars: Vec<Value> = self.bars.iter().map(Bar::json).collect();
        json!({"notes": self.notes, "tables": tables, "bars": bars})
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::Column;
    use super::super::unit::Unit;
    use super::*;

    #[test]
    fn notes_come_before_tables_and_bars_after() {
        let mut sheet = Sheet::new("Sizes", &[Column("bytes", "size", Unit::Bytes)]);
        sheet.record("it", "bytes", 1e6);
        let bar = Bar::at_most("its size", 2e6, Unit::Bytes, sheet.median("it", "bytes"));
        let report = Report {
            notes: vec!["It is small.".to_owned()],
            sheets: vec![sheet],
            bars: vec![bar],
        };
        let expect = "\
It is small.

Sizes:

|     |   size |
| --- | -----: |
| it  | 1.0 MB |

* bar: its size, at most 2.0 MB: measured 1.0 MB, met
";
        assert_eq!(report.markdown(), expect);
    }
}
