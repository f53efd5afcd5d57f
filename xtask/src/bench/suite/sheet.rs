//! Tables of numbers that were measured: rows by columns, in each cell one value a run.

use serde_json::{Map, Value, json};

use super::unit::Unit;
use crate::bench::results;
use crate::bench::table;

/// A column: the key that programs read, the words for people, the unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column(
    pub(crate) &'static str,
    pub(crate) &'static str,
    pub(crate) Unit,
);

/// A table.
#[derive(Debug)]
pub(crate) struct Sheet {
    title: String,
    columns: &'static [Column],
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    /// For each column the values.
    cells: Vec<Vec<f64>>,
}

impl Sheet {
    /// A table without rows.
    pub(crate) fn new(title: impl Into<String>, columns: &'static [Column]) -> Self {
        Self {
            title: title.into(),
            columns,
            rows: Vec::new(),
        }
    }

    /// Notes one more value. Rows are in the order in which they first came. A key that no column has is
    /// not noted: that is a bug, which a debug build does not survive.
    pub(crate) fn record(&mut self, row: &str, key: &str, value: f64) {
        let column = self.columns.iter().position(|column| column.0 == key);
        debug_assert!(column.is_some(), "no column {key}");
        let at = self.rows.iter().position(|known| known.name == row);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                name: row.to_owned(),
                cells: vec![Vec::new(); self.columns.len()],
            });
            self.rows.len() - 1
        });
        let cell = self
            .rows
            .get_mut(at)
            .zip(column)
            .and_then(|(row, column)| row.cells.get_mut(column));
        if let Some(cell) = cell {
            cell.push(value);
        }
    }

    /// All values of a cell, one a run.
    pub(crate) fn values(&self, row: &str, key: &str) -> &[f64] {
        let column = self.columns.iter().position(|column| column.0 == key);
        let row = self.rows.iter().find(|known| known.name == row);
        row.zip(column)
            .and_then(|(row, column)| row.cells.get(column))
            .map_or(&[], Vec::as_slice)
    }

    /// The median of a cell.
    pub(crate) fn median(&self, row: &str, key: &str) -> Option<f64> {
        results::median(self.values(row, key).to_vec())
    }

    /// How many times as much a row needs as another: the median of the ratios of the runs, since what
    /// disturbs one run disturbs both of its halves.
    pub(crate) fn ratio(&self, row: &str, other: &str, key: &str) -> Option<f64> {
        let (ours, theirs) = (self.values(row, key), self.values(other, key));
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        results::median(ratios.collect())
    }

    /// For people: medians, below the title.
    pub(crate) fn markdown(&self) -> String {
        let mut head = vec![String::new()];
        head.extend(self.columns.iter().map(|column| column.1.to_owned()));
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| self.line(row)).collect();
        format!("{}:\n\n{}", self.title, table::markdown(&head, &rows))
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let mut line = vec![row.name.clone()];
        for (Column(_, _, unit), values) in self.columns.iter().zip(&row.cells) {
            let median = results::median(values.clone());
            line.push(median.map_or_else(String::new, |value| unit.shown(value)));
        }
        line
    }

    /// For programs: all values.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            let cells = self.columns.iter().zip(&row.cells);
            let cells = cells.filter(|(_, values)| !values.is_empty());
            let cells: Map<String, Value> = cells
                .map(|(column, values)| (column.0.to_owned(), json!(values)))
                .collect();
            json!({"name": row.name, "runs": cells})
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({"title": self.title, "rows": rows})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column("wall_s", "wall", Unit::Seconds),
        Column("drawn_bytes", "drawn", Unit::Bytes),
    ];

    fn sheet() -> Sheet {
        let mut sheet = Sheet::new("Two programs", COLUMNS);
        for (ours, theirs) in [(1.0, 2.0), (10.0, 20.0), (2.0, 5.0)] {
            sheet.record("ours", "wall_s", ours);
            sheet.record("theirs", "wall_s", theirs);
        }
        sheet.record("theirs", "drawn_bytes", 3e6);
        sheet
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        assert_eq!(sheet().ratio("ours", "theirs", "wall_s"), Some(0.5));
        assert_eq!(sheet().ratio("ours", "theirs", "drawn_bytes"), None);
        assert_eq!(sheet().median("theirs", "wall_s"), Some(5.0));
        assert_eq!(sheet().median("nobody", "wall_s"), None);
    }

    #[test]
    fn people_see_medians_and_empty_cells() {
        let expect = "\
Two programs:

|        |   wall |  drawn |
| ------ | -----: | -----: |
| ours   | 2.00 s |        |
| theirs | 5.00 s | 3.0 MB |
";
        assert_eq!(sheet().markdown(), expect);
    }

    #[test]
    fn programs_see_all_values() {
        let rows = json!([
            {"name": "ours", "runs": {"wall_s": [1.0, 10.0, 2.0]}},
            {"name": "theirs", "runs": {"wall_s": [2.0, 20.0, 5.0], "drawn_bytes": [3e6]}},
        ]);
        let expect = json!({"title": "Two programs", "rows": rows});
        assert_eq!(sheet().json(), expect);
    }
}
