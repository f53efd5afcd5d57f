//! Tables in Markdown.

use std::time::Duration;

/// A table with aligned columns.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        head.get(column)
            .map_or(0, |cell| cell.chars().count())
            .max(widest)
            .max(3)
    };
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let pad = |column: usize, cell: &str| format!("{cell:<width$}", width = width(column));
    let mut text = line(
        head.iter()
            .enumerate()
            .map(|(at, cell)| pad(at, cell))
            .collect(),
    );
    text += &line(
        (0..head.len())
            .map(|column| "-".repeat(width(column)))
            .collect(),
    );
    for row in rows {
        text += &line(
            row.iter()
                .enumerate()
                .map(|(at, cell)| pad(at, cell))
                .collect(),
        );
    }
    text
}

/// Seconds with as many digits as mean something.
pub(crate) fn seconds(time: Duration) -> String {
    if time.as_secs() >= 10 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{:.3} s", time.as_secs_f64())
    }
}

/// Megabytes, of a million bytes, as disks and registries count.
pub(crate) fn megabytes(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// One time as a multiple of another.
pub(crate) fn ratio(time: Duration, of: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() / of.as_secs_f64().max(1e-9))
}
