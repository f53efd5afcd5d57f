//! The whole picture: its parts from top to bottom.

use draught_node::ImageTrace;

use super::canvas::{Canvas, Number};
use super::windows::windows;
use super::words::span;
use super::{colours, content, header, table, timeline};

/// Width of the picture, and of its margin.
pub(crate) const WIDTH: f64 = 1200.0;
pub(crate) const LEFT: f64 = 24.0;
pub(crate) const INNER_WIDTH: f64 = WIDTH - 2.0 * LEFT;
pub(crate) const INNER_RIGHT: f64 = LEFT + INNER_WIDTH;

/// Space between parts.
const GAP: f64 = 26.0;

/// Draws what happened to an image. Equal traces give equal pictures.
pub(crate) fn svg(trace: &ImageTrace) -> String {
    let windows = windows(trace);
    let mut parts = Canvas::default();
    let mut y = header::draw(&mut parts, trace, LEFT);
    if let Some(start_ms) = windows.start_ms {
        let title = format!("The start: the first {}", span(start_ms));
        y = timeline::draw(&mut parts, trace, &title, start_ms, y + GAP);
        let title = format!("All of it: {}", span(windows.all_ms));
        y = timeline::draw(&mut parts, trace, &title, windows.all_ms, y + GAP);
    } else {
        let title = "Since the mount";
        y = timeline::draw(&mut parts, trace, title, windows.all_ms, y + GAP);
    }
    y = table::draw(&mut parts, trace, y + GAP);
    y = content::draw(&mut parts, trace, windows.closest_ms(), y + GAP);
    let height = y + LEFT;

    let mut canvas = Canvas::default();
    let (width, height) = (Number(WIDTH), Number(height));
    canvas.markup(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n"
    ));
    // Without a tooltip of its own the first one in the file would be the picture's.
    canvas.tooltip("What happened to an image since it was mounted");
    canvas.markup(format_args!("\n<style>\n{}</style>\n", colours::STYLE));
    canvas.markup(format_args!("{}", colours::definitions()));
    canvas.markup(format_args!(
        "<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n"
    ));
    canvas.append(parts);
    canvas.markup(format_args!("</svg>\n"));
    canvas.finish()
}
