//! The text of an SVG, written shape by shape.

use std::fmt;

use super::escape;

/// A rectangle, in the units of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rect {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Rect {
    pub(crate) fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    pub(crate) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.y + self.height
    }

    pub(crate) fn area(&self) -> f64 {
        self.width * self.height
    }

    /// The rectangle without a margin, never less than nothing.
    pub(crate) fn inset(&self, by: f64) -> Self {
        let by_x = by.min(self.width / 2.0);
        let by_y = by.min(self.height / 2.0);
        Self {
            x: self.x + by_x,
            y: self.y + by_y,
            width: self.width - 2.0 * by_x,
            height: self.height - 2.0 * by_y,
        }
    }

    /// Whether they have more than an edge in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.x < other.right()
            && other.x < self.right()
            && self.y < other.bottom()
            && other.y < self.bottom()
    }
}

/// A coordinate: two decimals at most, no trailing zeros, never what is no number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(pub(crate) f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is out of any picture is clipped, so that no number is long.
        let value = if self.0.is_finite() {
            self.0.clamp(-1e6, 1e6)
        } else {
            0.0
        };
        let text = format!("{value:.2}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.write_str(if text == "-0" { "0" } else { text })
    }
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// An SVG that is being written. Classes, colours and element names come from the program; texts are
/// escaped here and nowhere else.
#[derive(Debug, Default)]
pub(crate) struct Canvas {
    out: String,
}

impl Canvas {
    /// Markup of the program itself.
    pub(crate) fn markup(&mut self, text: fmt::Arguments<'_>) {
        fmt::Write::write_fmt(&mut self.out, text).unwrap_or_default();
    }

    /// A rectangle.
    pub(crate) fn rect(&mut self, at: Rect, class: &str) {
        self.shape(at, class, "");
        self.out.push_str("/>\n");
    }

    /// A rectangle with an attribute more, like its colour, and a tooltip.
    pub(crate) fn told_rect(&mut self, at: Rect, class: &str, attributes: &str, tooltip: &str) {
        self.shape(at, class, attributes);
        self.out.push('>');
        self.tooltip(tooltip);
        self.out.push_str("</rect>\n");
    }

    /// A rectangle with an attribute more.
    pub(crate) fn made_rect(&mut self, at: Rect, class: &str, attributes: &str) {
        self.shape(at, class, attributes);
        self.out.push_str("/>\n");
    }

    fn shape(&mut self, at: Rect, class: &str, attributes: &str) {
        let Rect {
            x,
            y,
            width,
            height,
        } = at;
        let (x, y, width, height) = (
            Number(x),
            Number(y),
            Number(width.max(0.0)),
            Number(height.max(0.0)),
        );
        self.out.push_str("<rect");
        if !class.is_empty() {
            self.markup(format_args!(r#" class="{class}""#));
        }
        self.markup(format_args!(
            r#" x="{x}" y="{y}" width="{width}" height="{height}""#
        ));
        if !attributes.is_empty() {
            self.markup(format_args!(" {attributes}"));
        }
    }

    /// The tooltip of the element that is open.
    pub(crate) fn tooltip(&mut self, text: &str) {
        self.out.push_str("<title>");
        escape::push(&mut self.out, text);
        self.out.push_str("</title>");
    }

    /// A text on one line; `y` is its base line.
    pub(crate) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.anchored(x, y, class, Anchor::Start, text);
    }

    /// A text on one line that stands left of its point, or around it.
    pub(crate) fn anchored(&mut self, x: f64, y: f64, class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y) = (Number(x), Number(y));
        self.markup(format_args!(
            r#"<text class="{class}" x="{x}" y="{y}"{anchor}>"#
        ));
        escape::push(&mut self.out, &escape::one_line(text));
        self.out.push_str("</text>\n");
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let (x1, y1, x2, y2) = (Number(from.0), Number(from.1), Number(to.0), Number(to.1));
        self.markup(format_args!(
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>\n"
        ));
    }

    /// Another canvas on top of this one.
    pub(crate) fn append(&mut self, other: Self) {
        self.out.push_str(&other.out);
    }

    /// What has been written.
    pub(crate) fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_decimals_at_most() {
        let show = |value| Number(value).to_string();
        assert_eq!(show(1.0), "1");
        assert_eq!(show(0.126), "0.13");
        assert_eq!(show(100.0), "100");
        assert_eq!(show(-0.001), "0");
        assert_eq!(show(f64::NAN), "0");
        assert_eq!(show(1e300), "1000000");
    }
}
