//! Tables for people, in Markdown.

/// A table: its head, then rows of as many cells.
pub(crate) fn markdown(head: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = all().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        })
        .collect();
    let mut text = String::new();
    for (number, row) in all().enumerate() {
        text.push_str(&line(row, &widths));
        if number == 0 {
            let rule = widths.iter().enumerate().map(|(column, width)| {
                // Numbers stand below each other; the first column holds words.
                let dashes = "-".repeat(width - 1);
                if column == 0 {
                    format!("-{dashes}")
                } else {
                    format!("{dashes}:")
                }
            });
            text.push_str(&line(&rule.collect::<Vec<_>>(), &widths));
        }
    }
    text
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::from("|");
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        let cell = if column == 0 {
            format!(" {cell}{padding} |")
        } else {
            format!(" {padding}{cell} |")
        };
        line.push_str(&cell);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let text = markdown(&words(&["", "wall"]), &[words(&["zstd", "0.56 s"])]);
        let expect = "|      |   wall |\n| ---- | -----: |\n| zstd | 0.56 s |\n";
        assert_eq!(text, expect);
    }
}
