//! The top of the picture: which image it is, and its numbers.

use draught_node::ImageTrace;

use super::canvas::{Canvas, Rect};
use super::escape::fit;
use super::facts;
use super::picture::{INNER_WIDTH, LEFT};
use super::words::{count, float, short_digest, size, span, span_us, thousands};
use crate::units::percent;

/// A number in large letters.
struct Tile {
    name: &'static str,
    value: String,
    more: String,
    /// How much of a whole it is, 0 to 1.
    share: Option<f64>,
    warns: bool,
}

const TILE_HEIGHT: f64 = 68.0;
const TILE_GAP: f64 = 8.0;
const LINE_HEIGHT: f64 = 18.0;

/// Sources that get a line of their own.
const SOURCES_MAX: usize = 3;

/// Draws it and returns where it ends.
pub(crate) fn draw(canvas: &mut Canvas, trace: &ImageTrace, top: f64) -> f64 {
    let mut y = top + 20.0;
    canvas.text(LEFT, y, "h1", &fit(&trace.reference, 90));
    y += 22.0;
    let about = format!(
        "{} · served by {} · mounted {} ago",
        short_digest(&trace.digest),
        fit(&trace.transport, 40),
        span(float(trace.age_ms))
    );
    canvas.text(LEFT, y, "soft", &about);
    y += 16.0;
    let tiles = tiles(trace);
    let width = (INNER_WIDTH + TILE_GAP) / 6.0 - TILE_GAP;
    let mut x = LEFT;
    for tile in &tiles {
        draw_tile(canvas, tile, Rect::new(x, y, width, TILE_HEIGHT));
        x += width + TILE_GAP;
    }
    y += TILE_HEIGHT + LINE_HEIGHT;
    let sources = facts::sources(trace);
    for (name, sum) in sources.iter().take(SOURCES_MAX) {
        let name = if name.is_empty() {
            "an unknown source"
        } else {
            name
        };
        let line = format!(
            "{} in {} from {}",
            size(sum.bytes),
            count(sum.requests, "request", "requests"),
            fit(name, 120)
        );
        canvas.text(LEFT, y, "soft", &line);
        y += LINE_HEIGHT;
    }
    if sources.len() > SOURCES_MAX {
        let rest = format!("and {} more sources", sources.len() - SOURCES_MAX);
        canvas.text(LEFT, y, "soft", &rest);
        y += LINE_HEIGHT;
    }
    if trace.dropped > 0 {
        let line = format!(
            "{} more were not kept: the timeline and the waits are not complete",
            count(trace.dropped, "request or read", "requests and reads")
        );
        canvas.text(LEFT, y, "warn", &line);
        y += LINE_HEIGHT;
    }
    // What follows leaves a gap below the last line's base, not below the next one's.
    y - LINE_HEIGHT
}

fn tiles(trace: &ImageTrace) -> Vec<Tile> {
    let failed = trace.fetches.iter().filter(|fetch| !fetch.ok).count();
    let unanswered = trace.faults.iter().filter(|fault| !fault.ok).count();
    let (total_us, longest_us) = facts::waits(trace);
    let share = |part: u64| float(part) / float(trace.bytes_total.max(1));
    let longest = trace.faults.iter().max_by_key(|fault| fault.waited_us);
    vec![
        Tile {
            name: "on this node",
            value: size(trace.bytes_present),
            more: format!(
                "of {}, {}",
                size(trace.bytes_total),
                percent(trace.bytes_present, trace.bytes_total)
            ),
            share: Some(share(trace.bytes_present)),
            warns: false,
        },
        Tile {
            name: "fetched",
            value: size(trace.bytes_fetched),
            more: "as they are stored".to_owned(),
            share: None,
            warns: false,
        },
        Tile {
            name: "shared with other images",
            value: size(trace.bytes_shared),
            more: "there before it was mounted".to_owned(),
            share: Some(share(trace.bytes_shared)),
            warns: false,
        },
        Tile {
            name: "requests",
            value: thousands(u64::try_from(trace.fetches.len()).unwrap_or(u64::MAX)),
            more: if failed == 0 {
                "none failed".to_owned()
            } else {
                format!("{failed} failed")
            },
            share: None,
            warns: failed > 0,
        },
        Tile {
            name: "reads that waited",
            value: thousands(u64::try_from(trace.faults.len()).unwrap_or(u64::MAX)),
            more: if unanswered == 0 {
                format!("{} together", span_us(total_us))
            } else {
                format!("{}, {unanswered} failed", span_us(total_us))
            },
            share: None,
            warns: unanswered > 0,
        },
        Tile {
            name: "longest wait",
            value: span_us(longest_us),
            more: longest.map_or("nothing waited".to_owned(), |fault| {
                fit(name_of(&fault.path), 26)
            }),
            share: None,
            warns: false,
        },
    ]
}

/// The last part of a path.
fn name_of(path: &str) -> &str {
    match path.rsplit('/').next() {
        Some("") | None => "not in a file",
        Some(name) => name,
    }
}

fn draw_tile(canvas: &mut Canvas, tile: &Tile, at: Rect) {
    canvas.made_rect(at, "tile", r#"rx="4""#);
    let x = at.x + 10.0;
    canvas.text(x, at.y + 18.0, "small", tile.name);
    canvas.text(x, at.y + 40.0, "big", &tile.value);
    let class = if tile.warns { "warn" } else { "small" };
    canvas.text(x, at.y + 56.0, class, &tile.more);
    if let Some(share) = tile.share {
        let meter = Rect::new(at.x + 10.0, at.y + 61.0, at.width - 20.0, 3.0);
        canvas.rect(meter, "meter");
        let width = meter.width * share.clamp(0.0, 1.0);
        canvas.rect(Rect { width, ..meter }, "full");
    }
}
