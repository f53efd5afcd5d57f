//! The image's content as a map: every file an area, its colour what became of it.

use std::collections::BTreeMap;

use draught_node::{ImageTrace, TraceArea};

use super::canvas::{Anchor, Canvas, Rect};
use super::colours::touched;
use super::escape::{columns, fit, told};
use super::layout::{Cell, Group, Map, What, layout};
use super::picture::{INNER_WIDTH, LEFT};
use super::tree::{ROOT, State, Sum, Tree};
use super::words::{count, float, float_of, size, span, thousands};
use super::{facts, legend, table};

const HEIGHT: f64 = 640.0;

/// Rectangles, of which a file has up to three; some 250 bytes of SVG each.
const RECTS_MAX: usize = 4000;

/// From which area on it is shown how much of a file is here.
const LEVEL_AREA_MIN: f64 = 150.0;

/// Colours of touches before this share of the time are dark.
const DARK_SHARE: f64 = 0.55;

/// What fewer columns hold of a longer name says nothing.
const NAME_COLUMNS_MIN: usize = 10;

/// Names of files and of directories on the map.
const NAMES_MAX: usize = 200;

/// Draws it and returns where it ends.
pub(crate) fn draw(canvas: &mut Canvas, trace: &ImageTrace, end_ms: f64, top: f64) -> f64 {
    let mut y = top + 15.0;
    canvas.text(LEFT, y, "h2", "What is in it");
    let tree = Tree::new(&trace.areas);
    let files = u64::try_from(trace.areas.len()).unwrap_or(u64::MAX);
    let touched = trace
        .areas
        .iter()
        .filter(|area| area.touched_at_ms.is_some());
    let touched = u64::try_from(touched.count()).unwrap_or(u64::MAX);
    let bytes = trace
        .areas
        .iter()
        .fold(0_u64, |sum, area| sum.saturating_add(area.bytes));
    let about = format!(
        "{}, {}, of which {} touched; areas are sizes",
        count(files, "file", "files"),
        size(bytes),
        thousands(touched)
    );
    canvas.text(LEFT + 116.0, y, "soft", &about);
    y += 14.0;
    legend::content(canvas, end_ms, y);
    y += 36.0;
    let at = Rect::new(LEFT, y, INNER_WIDTH, HEIGHT);
    let map = layout(
        &tree,
        &trace.areas,
        at,
        |cell| rects(cell, &trace.areas),
        RECTS_MAX,
    );
    if map.cells.is_empty() {
        let at = Rect { height: 60.0, ..at };
        canvas.rect(at, "tile");
        let middle = (at.x + at.width / 2.0, at.y + 34.0);
        canvas.anchored(
            middle.0,
            middle.1,
            "soft",
            Anchor::Middle,
            "There is no content.",
        );
        return at.bottom();
    }
    for cell in &map.cells {
        draw_cell(canvas, cell, &tree, &trace.areas, end_ms);
    }
    for group in &map.groups {
        canvas.rect(group.at, "group");
    }
    canvas.rect(at, "edge");
    names(canvas, &map, &tree, trace, end_ms);
    at.bottom()
}

/// What a cell stands for in sum.
fn sum_of(what: &What, areas: &[TraceArea]) -> Option<(State, Sum)> {
    match what {
        What::File(file) => areas
            .get(*file)
            .map(|area| (State::of(area), Sum::of(area))),
        What::Small(_, state, sum) => Some((*state, *sum)),
    }
}

/// How much of it is here, 0 to 1, if the cell is so large and it is so little that this is shown.
fn level(at: &Rect, state: State, sum: &Sum) -> Option<f64> {
    let level = (float(sum.present) / float(sum.bytes.max(1))).clamp(0.0, 1.0);
    let shown = level < 0.97 && state != State::Absent && at.area() >= LEVEL_AREA_MIN;
    shown.then_some(level)
}

/// Whether it came with another image, for the larger part.
fn is_shared(sum: &Sum) -> bool {
    sum.shared > 0 && sum.shared >= sum.bytes / 2
}

/// How many rectangles a cell is drawn with.
fn rects(cell: &Cell, areas: &[TraceArea]) -> usize {
    sum_of(&cell.what, areas).map_or(0, |(state, sum)| {
        let partial = level(&cell.at, state, &sum).is_some();
        1 + usize::from(partial) + usize::from(is_shared(&sum))
    })
}

fn tooltip(what: &What, tree: &Tree<'_>, areas: &[TraceArea], state: State, sum: &Sum) -> String {
    let name = match what {
        What::File(file) => areas
            .get(*file)
            .map_or(String::new(), |area| told(&area.path)),
        What::Small(dir, ..) => {
            let path = if *dir == ROOT {
                "/".to_owned()
            } else {
                tree.path(*dir)
            };
            let files = count(sum.files, "small file", "small files");
            format!("{files} in {}", told(&path))
        }
    };
    let here = match sum.present.min(sum.bytes) {
        0 => "nothing".to_owned(),
        here if here == sum.bytes => "all".to_owned(),
        here => size(here),
    };
    let mut text = format!("{name}\n{}, {here} here", size(sum.bytes));
    if sum.shared > 0 {
        let shared = size(sum.shared.min(sum.bytes));
        text.push_str(&format!(", {shared} from other images"));
    }
    if state == State::Touched {
        let average = if sum.files > 1 { " on average" } else { "" };
        let at = span(sum.touched_ms / float(sum.files.max(1)));
        text.push_str(&format!("\nfirst touched at {at}{average}"));
    }
    text
}

fn draw_cell(canvas: &mut Canvas, cell: &Cell, tree: &Tree<'_>, areas: &[TraceArea], end_ms: f64) {
    let Some((state, sum)) = sum_of(&cell.what, areas) else {
        return;
    };
    let at_ms = sum.touched_ms / float(sum.files.max(1));
    let (class, fill) = match state {
        State::Touched => ("", format!("fill=\"{}\"", touched(at_ms / end_ms))),
        State::Ahead => ("ahead", String::new()),
        State::Shared => ("shared", String::new()),
        State::Absent => ("absent", String::new()),
    };
    let tooltip = tooltip(&cell.what, tree, areas, state, &sum);
    let at = cell.at.inset(if cell.at.area() > 60.0 { 0.5 } else { 0.2 });
    if let Some(level) = level(&cell.at, state, &sum) {
        let tint = format!("{class} tint");
        canvas.told_rect(at, tint.trim_start(), &fill, &tooltip);
        let height = at.height * level;
        let filled = Rect {
            y: at.bottom() - height,
            height,
            ..at
        };
        // The tooltip belongs to the file, not to its filled part.
        let attributes = format!("{fill} pointer-events=\"none\"");
        canvas.made_rect(filled, class, attributes.trim_start());
    } else {
        canvas.told_rect(at, class, &fill, &tooltip);
    }
    if is_shared(&sum) {
        canvas.rect(at, "hatch");
    }
}

/// Writes names where they do not cover each other: directories first, then the files that were
/// waited for longest, then large ones.
fn names(canvas: &mut Canvas, map: &Map, tree: &Tree<'_>, trace: &ImageTrace, end_ms: f64) {
    let mut taken: Vec<Rect> = Vec::new();
    for group in map.groups.iter().take(NAMES_MAX) {
        taken.extend(place_name(canvas, group, tree));
    }
    let ranks: BTreeMap<&str, usize> = facts::waits_by_file(trace, table::ROWS_MAX)
        .into_iter()
        .enumerate()
        .map(|(at, (path, _))| (path, at + 1))
        .collect();
    let mut files: Vec<(Rect, &TraceArea)> = Vec::new();
    for cell in &map.cells {
        if let What::File(file) = cell.what {
            files.extend(trace.areas.get(file).map(|area| (cell.at, area)));
        }
    }
    for (at, area) in &files {
        if let Some(rank) = ranks.get(area.path.as_str()) {
            taken.extend(mark(canvas, *at, *rank, &taken));
        }
    }
    files.sort_by(|a, b| b.0.area().total_cmp(&a.0.area()));
    let large = files
        .iter()
        .filter(|(at, _)| at.width >= 44.0 && at.height >= 14.0);
    for (at, area) in large.take(NAMES_MAX) {
        let class = name_class(*at, area, end_ms);
        taken.extend(file_name(canvas, *at, area, class, &taken));
    }
}

/// How many columns of a font fit into a width.
fn columns_in(width: f64, column: f64) -> usize {
    (0..200)
        .take_while(|at| float_of(at + 1) * column <= width)
        .count()
}

/// The name of a directory in its upper left corner.
fn place_name(canvas: &mut Canvas, group: &Group, tree: &Tree<'_>) -> Option<Rect> {
    const COLUMN: f64 = 7.0;
    if group.at.width < 46.0 || group.at.height < 24.0 {
        return None;
    }
    let room = columns_in(group.at.width - 16.0, COLUMN);
    let path = tree.path(group.dir);
    let text = match path.as_str() {
        "" => "/".to_owned(),
        path => end_of(path, room)?,
    };
    let width = float_of(columns(&text)) * COLUMN + 8.0;
    let plate = Rect::new(group.at.x + 3.0, group.at.y + 3.0, width, 16.0);
    canvas.made_rect(plate, "plate", "rx=\"2\"");
    canvas.text(plate.x + 4.0, plate.y + 12.0, "mono place", &text);
    Some(plate)
}

/// As many of the last names of a path as there is room for, if that says anything.
fn end_of(path: &str, room: usize) -> Option<String> {
    if columns(path) <= room {
        return Some(path.to_owned());
    }
    let ends = path.match_indices('/').filter_map(|(at, _)| path.get(at..));
    let mut ends = ends.map(|end| format!("…{end}"));
    let name = path.rsplit('/').next().unwrap_or_default();
    let end = ends.find(|end| columns(end) <= room);
    end.or_else(|| {
        let says = columns(name) <= room || room >= NAME_COLUMNS_MIN;
        says.then(|| fit(name, room))
    })
}

/// The rank of a file that was waited for, in its upper right corner or as near as there is room.
fn mark(canvas: &mut Canvas, at: Rect, rank: usize, taken: &[Rect]) -> Option<Rect> {
    if at.width < 9.0 || at.height < 9.0 {
        return None;
    }
    let (low, high) = ((at.x + 1.0).min(at.right() - 15.0), at.right() - 15.0);
    let corners = [
        (high, at.y + 1.0),
        (high, at.bottom() - 15.0),
        (low, at.bottom() - 15.0),
        (low, at.y + 1.0),
    ];
    let places = corners.map(|(x, y)| Rect::new(x, y, 14.0, 14.0));
    let free = |place: &Rect| !taken.iter().any(|other| other.overlaps(place));
    let place = places.into_iter().find(free)?;
    canvas.made_rect(place, "mark", "rx=\"7\"");
    let text = rank.to_string();
    canvas.anchored(place.x + 7.0, place.y + 10.5, "rank", Anchor::Middle, &text);
    Some(place)
}

/// How a name is written so that it can be read on the colour in the middle of its file.
fn name_class(at: Rect, area: &TraceArea, end_ms: f64) -> &'static str {
    let level = level(&at, State::of(area), &Sum::of(area)).unwrap_or(1.0);
    let dark = area
        .touched_at_ms
        .is_some_and(|ms| float(ms) < end_ms * DARK_SHARE);
    if dark && level > 0.55 {
        "name lit"
    } else {
        "name"
    }
}

/// The name of a file in its middle.
fn file_name(
    canvas: &mut Canvas,
    at: Rect,
    area: &TraceArea,
    class: &str,
    taken: &[Rect],
) -> Option<Rect> {
    const COLUMN: f64 = 6.1;
    let name = area.path.rsplit('/').next().unwrap_or_default();
    let room = columns_in(at.width - 8.0, COLUMN);
    if columns(name) > room && room < NAME_COLUMNS_MIN {
        return None;
    }
    let text = fit(name, room);
    let width = float_of(columns(&text)) * COLUMN;
    let middle = (at.x + at.width / 2.0, at.y + at.height / 2.0);
    let place = Rect::new(middle.0 - width / 2.0, middle.1 - 6.0, width, 12.0);
    if taken.iter().any(|other| other.overlaps(&place)) {
        return None;
    }
    canvas.anchored(middle.0, middle.1 + 3.5, class, Anchor::Middle, &text);
    Some(place)
}
