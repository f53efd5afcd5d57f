//! Reads that waited, over time: the longest each in a row of its own, the others in lanes.

use draught_node::{ImageTrace, TraceFault};

use super::canvas::{Canvas, Rect};
use super::escape::{one_line, told};
use super::lanes::{Axis, Bar, Span, pack};
use super::timeline::{BAND_GAP, beside, name, place};
use super::words::{count, float, float_of, size, span, span_us};

/// Waits that have a row and a name.
const NAMED_MAX: usize = 5;

const ROW_HEIGHT: f64 = 17.0;

/// Lanes of the other waits, and their bars.
const LANES_MAX: usize = 8;
const BARS_MAX: usize = 1200;

/// Draws them and returns where they end.
pub(crate) fn draw(canvas: &mut Canvas, trace: &ImageTrace, axis: &Axis, top: f64) -> f64 {
    let within = trace.faults.iter().enumerate();
    let mut faults: Vec<Numbered<'_>> = within
        .filter(|(_, fault)| float(fault.at_ms) <= axis.end_ms)
        .collect();
    if faults.is_empty() {
        canvas.text(axis.left + 6.0, top + 12.0, "soft", "No read waited.");
        return top + 20.0;
    }
    faults.sort_by_key(|(index, fault)| (std::cmp::Reverse(fault.waited_us), *index));
    let (mut longest, others) = named(faults);
    longest.sort_by_key(|(index, fault)| (fault.at_ms, *index));

    let mut y = top;
    let height = float_of(longest.len()) * ROW_HEIGHT;
    canvas.rect(Rect::new(axis.left, y, axis.width, height), "band");
    name(
        canvas,
        axis,
        y + 13.0,
        if others.is_empty() {
            "waits"
        } else {
            "longest waits"
        },
    );
    for (_, fault) in &longest {
        row(canvas, axis, fault, y);
        y += ROW_HEIGHT;
    }
    y += BAND_GAP;
    if others.is_empty() {
        return y;
    }
    let spans = others.iter().map(|(index, fault)| Span {
        index: *index,
        from_ms: float(fault.at_ms),
        to_ms: end_ms(fault),
        bytes: fault.bytes,
        failed: !fault.ok,
    });
    let bars = pack(spans.collect(), axis, LANES_MAX, BARS_MAX);
    let lanes = bars.iter().map(|bar| bar.lane + 1).max().unwrap_or(1);
    // As high as a lane of requests.
    let height = float_of(lanes) * 9.0;
    canvas.rect(Rect::new(axis.left, y, axis.width, height), "band");
    name(canvas, axis, y + height / 2.0 + 4.0, "other waits");
    for bar in &bars {
        let class = if bar.failed { "failed" } else { "rest" };
        canvas.told_rect(place(bar, y), class, "", &told_of(trace, bar));
    }
    y + height + BAND_GAP
}

/// A wait, and its index in the trace.
type Numbered<'a> = (usize, &'a TraceFault);

/// Divides waits, the longest first, into those that get a name and the others. Of readers that
/// waited for a file at the same time one is named.
fn named(faults: Vec<Numbered<'_>>) -> (Vec<Numbered<'_>>, Vec<Numbered<'_>>) {
    let mut named: Vec<Numbered<'_>> = Vec::new();
    let mut others = Vec::new();
    for (index, fault) in faults {
        let same = |(_, other): &Numbered<'_>| {
            other.path == fault.path
                && float(other.at_ms) <= end_ms(fault)
                && float(fault.at_ms) <= end_ms(other)
        };
        if named.len() < NAMED_MAX && !named.iter().any(same) {
            named.push((index, fault));
        } else {
            others.push((index, fault));
        }
    }
    (named, others)
}

fn end_ms(fault: &TraceFault) -> f64 {
    float(fault.at_ms) + float(fault.waited_us) / 1000.0
}

/// One long wait with its name.
fn row(canvas: &mut Canvas, axis: &Axis, fault: &TraceFault, y: f64) {
    let from = axis.at(float(fault.at_ms));
    let width = (axis.at(end_ms(fault)) - from).max(1.6);
    let bar = Rect::new(
        from.min(axis.right() - width),
        y + 3.0,
        width,
        ROW_HEIGHT - 6.0,
    );
    let class = if fault.ok { "wait" } else { "failed" };
    canvas.told_rect(bar, class, "", &one(fault));
    let path = if fault.path.is_empty() {
        "(not in a file)"
    } else {
        &fault.path
    };
    let text = format!("{} · {}", span_us(fault.waited_us), one_line(path));
    // White would not be legible on a pattern.
    let on_class = if fault.ok { "file on" } else { "file halo" };
    beside(canvas, axis, bar, y + 12.5, on_class, &text);
}

/// A tooltip of a wait.
fn one(fault: &TraceFault) -> String {
    let failed = if fault.ok { "" } else { ", failed" };
    format!(
        "{}\nwaited {} from {}{failed}\nfor {} at byte {}",
        told(&fault.path),
        span_us(fault.waited_us),
        span(float(fault.at_ms)),
        size(fault.bytes),
        fault.offset
    )
}

fn told_of(trace: &ImageTrace, bar: &Bar) -> String {
    let Some(fault) = trace.faults.get(bar.index) else {
        return String::new();
    };
    if bar.count == 1 {
        return one(fault);
    }
    format!(
        "{} for {}; the longest:\n{}",
        count(bar.count, "wait", "waits"),
        size(bar.bytes),
        one(fault)
    )
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn of_readers_that_wait_for_a_file_together_one_is_named() {
        let faults = [
            example::fault(0, 90_000, "a"),
            example::fault(10, 80_000, "a"),
            example::fault(500, 70_000, "a"),
            example::fault(10, 60_000, "b"),
        ];
        let (named, others) = named(faults.iter().enumerate().collect());
        let indices =
            |faults: Vec<Numbered<'_>>| faults.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!((indices(named), indices(others)), (vec![0, 2, 3], vec![1]));
    }
}
