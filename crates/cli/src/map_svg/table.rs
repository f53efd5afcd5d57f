//! What was waited for longest, file by file.

use draught_node::ImageTrace;

use super::canvas::{Anchor, Canvas, Rect};
use super::escape::fit;
use super::facts;
use super::picture::{INNER_RIGHT, LEFT};
use super::words::{float, size, span_us, thousands};

/// Files in the table.
pub(crate) const ROWS_MAX: usize = 10;

const ROW_HEIGHT: f64 = 21.0;

/// Right edges of the columns of numbers.
const WAITS: f64 = 790.0;
const BYTES: f64 = 880.0;
const LONGEST: f64 = 970.0;
const TOTAL: f64 = 1056.0;

/// Columns of the font that a path has.
const PATH_COLUMNS: usize = 98;

/// Draws it and returns where it ends.
pub(crate) fn draw(canvas: &mut Canvas, trace: &ImageTrace, top: f64) -> f64 {
    let mut y = top + 15.0;
    canvas.text(LEFT, y, "h2", "What it waited for longest");
    let rows = facts::waits_by_file(trace, ROWS_MAX);
    let Some((_, most)) = rows.first() else {
        canvas.text(LEFT, y + 24.0, "soft", "No read waited.");
        return y + 30.0;
    };
    y += 25.0;
    canvas.text(LEFT + 26.0, y, "small", "file");
    for (x, name) in [
        (WAITS, "waits"),
        (BYTES, "bytes"),
        (LONGEST, "longest"),
        (TOTAL, "together"),
    ] {
        canvas.anchored(x, y, "small", Anchor::End, name);
    }
    y += 7.0;
    canvas.line((LEFT, y), (INNER_RIGHT, y), "rule");
    for (at, (path, waits)) in rows.iter().enumerate() {
        let base = y + 15.0;
        let rank = (at + 1).to_string();
        canvas.anchored(LEFT + 16.0, base, "soft", Anchor::End, &rank);
        let path = if path.is_empty() {
            "(not in a file)"
        } else {
            path
        };
        canvas.text(LEFT + 26.0, base, "file", &fit(path, PATH_COLUMNS));
        for (x, text) in [
            (WAITS, thousands(waits.count)),
            (BYTES, size(waits.bytes)),
            (LONGEST, span_us(waits.longest_us)),
            (TOTAL, span_us(waits.total_us)),
        ] {
            canvas.anchored(x, base, "", Anchor::End, &text);
        }
        let share = float(waits.total_us) / float(most.total_us.max(1));
        let room = INNER_RIGHT - TOTAL - 12.0;
        canvas.rect(Rect::new(TOTAL + 12.0, y + 6.0, room * share, 10.0), "wait");
        y += ROW_HEIGHT;
        canvas.line((LEFT, y), (INNER_RIGHT, y), "grid");
    }
    y
}
