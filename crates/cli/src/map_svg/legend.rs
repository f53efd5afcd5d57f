//! What the colours mean.

use super::canvas::{Anchor, Canvas, Rect};
use super::picture::{INNER_RIGHT, LEFT};
use super::words::span;

/// The colours of bars, right of a heading.
pub(crate) fn timeline(canvas: &mut Canvas, base: f64) {
    let entries = [
        ("demand", "a reader waited for it", 158.0),
        ("prefetch", "fetched ahead", 112.0),
        ("background", "nobody waited", 116.0),
        ("failed", "failed", 66.0),
        ("wait", "a read's wait", 0.0),
    ];
    let mut x = INNER_RIGHT - 96.0;
    let rest: f64 = entries.iter().map(|(.., width)| width).sum();
    x -= rest;
    for (class, text, width) in entries {
        canvas.rect(Rect::new(x, base - 9.0, 12.0, 9.0), class);
        canvas.text(x + 17.0, base, "small", text);
        x += width;
    }
}

/// The colours of files.
pub(crate) fn content(canvas: &mut Canvas, end_ms: f64, y: f64) {
    let base = y + 10.0;
    let scale = Rect::new(LEFT, y, 200.0, 12.0);
    canvas.made_rect(scale, "", "fill=\"url(#touched)\"");
    canvas.text(scale.right() + 8.0, base, "small", "first touched");
    for (at, text) in ["mount".to_owned(), span(end_ms / 2.0), span(end_ms)]
        .iter()
        .enumerate()
    {
        let (share, anchor) = match at {
            0 => (0.0, Anchor::Start),
            1 => (0.5, Anchor::Middle),
            _ => (1.0, Anchor::End),
        };
        canvas.anchored(
            scale.x + scale.width * share,
            y + 25.0,
            "small",
            anchor,
            text,
        );
    }
    let mut x = scale.right() + 108.0;
    for (index, (class, text, width)) in [
        ("ahead", "fetched, not touched", 150.0),
        ("absent", "neither", 74.0),
        ("shared", "from another image", 148.0),
        ("tint", "the filled part is on this node", 212.0),
    ]
    .iter()
    .enumerate()
    {
        let swatch = Rect::new(x, y, 16.0, 12.0);
        if *class == "tint" {
            canvas.made_rect(swatch, "tint", r##"fill="#e5532d""##);
            let level = Rect::new(x, y + 6.0, 16.0, 6.0);
            canvas.made_rect(level, "", r##"fill="#e5532d""##);
        } else {
            canvas.rect(swatch, class);
        }
        if index == 2 {
            canvas.rect(swatch, "hatch");
        }
        canvas.text(x + 22.0, base, "small", text);
        x += width;
    }
    canvas.made_rect(Rect::new(x, y - 1.0, 14.0, 14.0), "mark", "rx=\"7\"");
    canvas.anchored(x + 7.0, y + 9.5, "rank", Anchor::Middle, "1");
    canvas.text(x + 20.0, base, "small", "rank in the table above");
}
