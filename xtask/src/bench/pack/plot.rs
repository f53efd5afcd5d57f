//! Points on two logarithmic axes, as SVG that reads on light and on dark ground.

use std::fmt::Write as _;

/// What is measured at a place.
#[derive(Debug)]
pub(super) struct Point {
    /// How much.
    pub(super) x: f64,
    /// Seconds.
    pub(super) y: f64,
    /// What is written beside it.
    pub(super) words: String,
}

/// A drawing: one series of points, and the line on which they would lie if cost were linear.
#[derive(Debug)]
pub(super) struct Panel {
    /// What it shows; no character that XML knows may be in it.
    pub(super) title: &'static str,
    /// What the lower axis counts.
    pub(super) axis: &'static str,
    /// From the smallest to the largest.
    pub(super) points: Vec<Point>,
}

/// Width and height of a panel, and the margins around its axes, in pixels.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 48.0;

/// Grey that stands out from white and from black; colours likewise.
const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}.grid{stroke:#8c959f;stroke-opacity:.35}\
    .linear{stroke:#8c959f;stroke-dasharray:4 4;fill:none}.line{stroke:#0969da;stroke-width:2;fill:none}\
    .dot{fill:#0969da}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.line{stroke:#58a6ff}.dot{fill:#58a6ff}}";

/// Powers of ten from below the smallest to above the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decades {
    low: i32,
    high: i32,
}

impl Decades {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let logs: Vec<f64> = values
            .filter(|value| *value > 0.0)
            .map(f64::log10)
            .collect();
        let low = logs.iter().copied().reduce(f64::min)?.floor();
        let high = logs.iter().copied().reduce(f64::max)?.ceil();
        // Exponents of what can be measured are small.
        let whole = |value: f64| format!("{value:.0}").parse().ok();
        let (low, high): (i32, i32) = (whole(low)?, whole(high)?);
        Some(Self {
            low,
            high: high.max(low + 1),
        })
    }

    /// Where a value is between the ends: from 0 to 1.
    fn part(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn marks(self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|exponent| 10_f64.powi(exponent))
    }
}

/// The panels beside each other. Writing to a string does not fail.
pub(super) fn svg(panels: &[Panel]) -> Result<String, std::fmt::Error> {
    let width = WIDTH * panels.iter().map(|_| 1.0).sum::<f64>();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" \
         width=\"{width}\" height=\"{HEIGHT}\">\n<style>{STYLE}</style>\n"
    );
    let mut left = 0.0;
    for panel in panels {
        text.push_str(&format!("<g transform=\"translate({left} 0)\">\n"));
        panel.draw(&mut text)?;
        text.push_str("</g>\n");
        left += WIDTH;
    }
    text.push_str("</svg>\n");
    Ok(text)
}

impl Panel {
    fn draw(&self, text: &mut String) -> std::fmt::Result {
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        writeln!(
            text,
            "<text x=\"{middle}\" y=\"20\" text-anchor=\"middle\">{}</text>",
            self.title
        )?;
        let xs = Decades::of(self.points.iter().map(|point| point.x));
        let ys = Decades::of(self.points.iter().map(|point| point.y));
        let Some((xs, ys)) = xs.zip(ys) else {
            return Ok(());
        };
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let across = |x: f64| LEFT + xs.part(x) * (right - LEFT);
        let up = |y: f64| bottom - ys.part(y) * (bottom - TOP);
        for mark in xs.marks() {
            let at = across(mark);
            writeln!(text, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>")?;
            let below = bottom + 18.0;
            writeln!(
                text,
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                grouped(mark)
            )?;
        }
        for mark in ys.marks() {
            let at = up(mark);
            writeln!(text, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>")?;
            let (before, base) = (LEFT - 8.0, at + 4.0);
            writeln!(
                text,
                "<text x=\"{before}\" y=\"{base:.1}\" text-anchor=\"end\">{} s</text>",
                grouped(mark)
            )?;
        }
        let below = bottom + 38.0;
        writeln!(
            text,
            "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            self.axis
        )?;
        self.draw_linear(text, across, up)?;
        let line: Vec<String> = self
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", across(point.x), up(point.y)))
            .collect();
        writeln!(
            text,
            "<polyline class=\"line\" points=\"{}\"/>",
            line.join(" ")
        )?;
        for point in &self.points {
            let (x, y) = (across(point.x), up(point.y));
            writeln!(
                text,
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
            )?;
            // Inside, on the side where the line does not go.
            let (x, y, anchor) = if x > middle {
                (x - 10.0, y - 4.0, "end")
            } else {
                (x + 10.0, y + 14.0, "start")
            };
            writeln!(
                text,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                point.words
            )?;
        }
        Ok(())
    }

    /// From the first point on, where the last one would be.
    fn draw_linear(
        &self,
        text: &mut String,
        across: impl Fn(f64) -> f64,
        up: impl Fn(f64) -> f64,
    ) -> std::fmt::Result {
        let Some((first, last)) = self.points.first().zip(self.points.last()) else {
            return Ok(());
        };
        let (from, to) = (across(first.x), across(last.x));
        let (start, end) = (up(first.y), up(first.y * last.x / first.x));
        writeln!(
            text,
            "<path class=\"linear\" d=\"M{from:.1} {start:.1}L{to:.1} {end:.1}\"/>"
        )
    }
}

/// A number with its digits in groups of three.
fn grouped(value: f64) -> String {
    let digits = if value < 1.0 {
        return format!("{value}");
    } else {
        format!("{value:.0}")
    };
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_all_values() {
        let decades = Decades::of([20.0, 3000.0].into_iter()).unwrap();
        assert_eq!(decades, Decades { low: 1, high: 4 });
        assert!((decades.part(100.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(
            Decades::of([10.0].into_iter()),
            Some(Decades { low: 1, high: 2 })
        );
        assert_eq!(Decades::of(std::iter::empty()), None);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_000_000.0), "1,000,000");
        assert_eq!(grouped(100.0), "100");
        assert_eq!(grouped(0.1), "0.1");
    }

    #[test]
    fn a_drawing_has_all_points_within_it() {
        let point = |x: f64, y: f64| Point {
            x,
            y,
            words: format!("{y} s"),
        };
        let text = svg(&[
            Panel {
                title: "one",
                axis: "files",
                points: vec![point(10.0, 0.2), point(1000.0, 20.0)],
            },
            Panel {
                title: "nothing",
                axis: "GB",
                points: Vec::new(),
            },
        ])
        .unwrap();
        assert_eq!(text.matches("<circle").count(), 2);
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
        assert!(text.contains("0.2 s") && text.contains("20 s"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
