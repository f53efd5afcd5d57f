//! Requests and waits over time.

use draught_node::{ImageTrace, TraceFetch, TracePriority};

use super::canvas::{Anchor, Canvas, Number, Rect};
use super::colours::class_of;
use super::escape::{columns, fit};
use super::lanes::{Axis, Bar, Span, pack};
use super::legend;
use super::picture::{INNER_RIGHT, LEFT};
use super::waits;
use super::words::{count, float, float_of, short_digest, size, span, ticks};

/// Room left of the axis for the names of lanes.
const GUTTER: f64 = 96.0;

/// Lanes of requests of each priority: 16 together.
const LANES_MAX: [(TracePriority, usize); 3] = [
    (TracePriority::Demand, 6),
    (TracePriority::Prefetch, 6),
    (TracePriority::Background, 4),
];

/// Bars of each priority; some 200 bytes of SVG each.
const BARS_MAX: usize = 700;

const LANE_HEIGHT: f64 = 9.0;
const CURVE_HEIGHT: f64 = 74.0;

/// Space between bands.
pub(crate) const BAND_GAP: f64 = 8.0;

/// Points of the curve.
const POINTS: usize = 520;

/// Draws what happened until `end_ms` and returns where it ends.
pub(crate) fn draw(
    canvas: &mut Canvas,
    trace: &ImageTrace,
    title: &str,
    end_ms: f64,
    top: f64,
) -> f64 {
    let axis = Axis {
        left: LEFT + GUTTER,
        width: INNER_RIGHT - LEFT - GUTTER,
        end_ms,
    };
    let base = top + 15.0;
    canvas.text(LEFT, base, "h2", title);
    legend::timeline(canvas, base);
    let mut y = base + 14.0;
    let first = y;
    let mut bands = Canvas::default();
    y = curve(&mut bands, trace, &axis, y) + BAND_GAP;
    let mut drawn = false;
    for (priority, lanes_max) in LANES_MAX {
        let below = requests(&mut bands, trace, &axis, priority, lanes_max, y);
        drawn |= below > y;
        y = below;
    }
    if !drawn {
        bands.text(axis.left + 6.0, y + 12.0, "soft", "Nothing was requested.");
        y += 20.0;
    }
    y = waits::draw(&mut bands, trace, &axis, y);
    scale(canvas, &axis, first, y);
    canvas.append(bands);
    y + 18.0
}

/// The name of a band, left of it.
pub(crate) fn name(canvas: &mut Canvas, axis: &Axis, y: f64, text: &str) {
    canvas.anchored(axis.left - 10.0, y, "small", Anchor::End, text);
}

/// The axis: lines through all bands, their times below.
fn scale(canvas: &mut Canvas, axis: &Axis, top: f64, bottom: f64) {
    for tick in ticks(axis.end_ms, 12.0) {
        let x = axis.at(tick);
        canvas.line((x, top), (x, bottom), "grid");
        let anchor = if x + 24.0 > axis.right() {
            Anchor::End
        } else {
            Anchor::Middle
        };
        let text = if tick == 0.0 {
            "mount".to_owned()
        } else {
            span(tick)
        };
        canvas.anchored(x, bottom + 15.0, "small", anchor, &text);
    }
    canvas.line((axis.left, bottom), (axis.right(), bottom), "rule");
}

/// Bytes fetched so far. They are taken to come evenly while a request takes.
fn curve(canvas: &mut Canvas, trace: &ImageTrace, axis: &Axis, top: f64) -> f64 {
    let bottom = top + CURVE_HEIGHT;
    name(canvas, axis, top + 11.0, "fetched");
    let step = axis.end_ms / float_of(POINTS);
    // What comes in each step, and so much that has come before the first.
    let mut rates = vec![0.0; POINTS + 2];
    for fetch in trace.fetches.iter().filter(|fetch| fetch.ok) {
        spread(&mut rates, fetch, step);
    }
    let mut come = 0.0;
    let mut sums = vec![0.0];
    for rate in rates.iter().take(POINTS) {
        come += rate;
        sums.push(come);
    }
    canvas.line((axis.left, bottom), (axis.right(), bottom), "rule");
    if come <= 0.0 {
        return bottom;
    }
    let mut path = String::new();
    let mut last = None;
    for (at, sum) in sums.iter().enumerate() {
        let y = bottom - (CURVE_HEIGHT - 6.0) * sum / come;
        let flat = last.is_some_and(|last: f64| (last - y).abs() < 0.005);
        let next_flat = sums.get(at + 1).is_some_and(|next| next - sum <= 0.0);
        // Points within a level stretch are not needed.
        if !(flat && next_flat) {
            let x = axis.at(float_of(at) * step);
            path.push_str(&format!("L{} {}", Number(x), Number(y)));
        }
        last = Some(y);
    }
    let path = path.trim_start_matches('L');
    let (left, right, base) = (Number(axis.left), Number(axis.right()), Number(bottom));
    canvas.markup(format_args!(
        "<path class=\"under\" d=\"M{path}L{right} {base}L{left} {base}Z\"/>\n<path class=\"curve\" d=\"M{path}\"/>\n"
    ));
    // Where the curve has room above it.
    let ok = trace
        .fetches
        .iter()
        .filter(|fetch| fetch.ok && float(fetch.at_ms) <= axis.end_ms);
    let bytes = ok.fold(0_u64, |sum, fetch| sum.saturating_add(fetch.bytes));
    let half = sums.get(POINTS / 5).copied().unwrap_or(0.0) > come * 0.7;
    let label = size(bytes);
    if half {
        canvas.anchored(
            axis.right() - 4.0,
            bottom - 8.0,
            "halo",
            Anchor::End,
            &label,
        );
    } else {
        canvas.text(axis.left + 6.0, top + 12.0, "halo", &label);
    }
    bottom
}

/// Adds a request's bytes to the steps in which they came.
fn spread(rates: &mut [f64], fetch: &TraceFetch, step: f64) {
    let from = float(fetch.at_ms) / step;
    let to = (float(fetch.at_ms) + float(fetch.took_ms)) / step;
    let all = float(fetch.bytes);
    for (at, rate) in rates.iter_mut().enumerate() {
        let low = float_of(at);
        if low > to {
            break;
        }
        let part = if to - from < 1e-9 {
            if (low..low + 1.0).contains(&from) {
                1.0
            } else {
                0.0
            }
        } else {
            ((to.min(low + 1.0) - from.max(low)) / (to - from)).max(0.0)
        };
        *rate += all * part;
    }
}

/// The requests of a priority; nothing if there are none.
fn requests(
    canvas: &mut Canvas,
    trace: &ImageTrace,
    axis: &Axis,
    priority: TracePriority,
    lanes_max: usize,
    top: f64,
) -> f64 {
    let wanted = trace.fetches.iter().enumerate();
    let spans = wanted.filter(|(_, fetch)| fetch.priority == priority);
    let spans = spans.map(|(index, fetch)| Span {
        index,
        from_ms: float(fetch.at_ms),
        to_ms: float(fetch.at_ms) + float(fetch.took_ms),
        bytes: fetch.bytes,
        failed: !fetch.ok,
    });
    let bars = pack(spans.collect(), axis, lanes_max, BARS_MAX);
    let Some(lanes) = bars.iter().map(|bar| bar.lane + 1).max() else {
        return top;
    };
    let class = class_of(priority);
    let height = float_of(lanes) * LANE_HEIGHT;
    canvas.rect(Rect::new(axis.left, top, axis.width, height), "band");
    name(canvas, axis, top + height / 2.0 + 4.0, class);
    for bar in &bars {
        let class = if bar.failed { "failed" } else { class };
        let tooltip = told(trace, bar, priority);
        canvas.told_rect(place(bar, top), class, "", &tooltip);
    }
    top + height + BAND_GAP
}

/// Where a bar is drawn, with a gap to what follows it.
pub(crate) fn place(bar: &Bar, top: f64) -> Rect {
    let y = top + float_of(bar.lane) * LANE_HEIGHT + 1.0;
    let width = (bar.to - bar.from - 0.4).max(1.2);
    Rect::new(bar.from, y, width, LANE_HEIGHT - 2.0)
}

fn told(trace: &ImageTrace, bar: &Bar, priority: TracePriority) -> String {
    let Some(fetch) = trace.fetches.get(bar.index) else {
        return String::new();
    };
    let blob = usize::try_from(fetch.blob).ok();
    let blob = blob.and_then(|blob| trace.blobs.get(blob));
    let blob = blob.map_or("?".to_owned(), |blob| short_digest(&blob.digest));
    let what = class_of(priority);
    let (at, took) = (span(float(fetch.at_ms)), span(bar.longest_ms));
    let failed = if bar.failed { ", failed" } else { "" };
    if bar.count > 1 {
        return format!(
            "{what}: {}, {}{failed}\nthe longest took {took} from {at}",
            count(bar.count, "request", "requests"),
            size(bar.bytes)
        );
    }
    format!(
        "{what}: {}, took {took} from {at}{failed}\n{blob} at byte {}",
        size(fetch.bytes),
        fetch.start
    )
}

/// A text beside a bar, where there is room for it: right of it, left of it, or on it.
pub(crate) fn beside(
    canvas: &mut Canvas,
    axis: &Axis,
    bar: Rect,
    base: f64,
    on_class: &str,
    text: &str,
) {
    // The advance of the fixed-width fonts that are asked for, at 11 units.
    const COLUMN: f64 = 6.7;
    let room_of = |room: f64| {
        let whole = ((room - 12.0) / COLUMN).floor().clamp(0.0, 200.0);
        (0..200_usize)
            .take_while(|at| float_of(*at) < whole)
            .count()
    };
    let wanted = columns(text).min(100);
    let right = room_of(axis.right() - bar.right());
    let left = room_of(bar.x - axis.left);
    let on = room_of(bar.width);
    if right >= wanted || (right >= left && right >= on) {
        canvas.text(
            bar.right() + 6.0,
            base,
            "file halo",
            &fit(text, right.min(100)),
        );
    } else if left >= wanted || left >= on {
        let text = fit(text, left.min(100));
        canvas.anchored(bar.x - 6.0, base, "file halo", Anchor::End, &text);
    } else {
        canvas.text(bar.x + 6.0, base, on_class, &fit(text, on.min(100)));
    }
}
