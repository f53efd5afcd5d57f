//! Where each file is drawn: a squarified treemap (Bruls, Huizing and van Wijk, 2000), directory by
//! directory. Areas are exactly proportional to sizes: names and gaps are drawn over them.

use draught_node::TraceArea;

use super::canvas::Rect;
use super::tree::{ROOT, State, Sum, Sums, Tree};
use super::words::float;

/// What a rectangle stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// A file, by index of the trace.
    File(usize),
    /// Small files of one state in or below a directory.
    Small(usize, State, Sum),
}

/// A rectangle that is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub(crate) at: Rect,
    pub(crate) what: What,
}

/// A directory that is worth a name on the map; none lies in another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group {
    pub(crate) at: Rect,
    pub(crate) dir: usize,
}

/// A map.
#[derive(Debug, Default)]
pub(crate) struct Map {
    pub(crate) cells: Vec<Cell>,
    pub(crate) groups: Vec<Group>,
}

/// The smallest area a file is drawn with by itself, if there are not too many of them.
const AREA_MIN: f64 = 40.0;

/// Directories with less than so many times the smallest area are not divided.
const DIR_FACTOR: f64 = 4.0;

/// A directory with more than this share of the map is named by its parts, if it has such that are
/// larger than the other share.
const GROUP_SHARE_MAX: f64 = 0.14;
const GROUP_SHARE_MIN: f64 = 0.03;

/// Lays out all files so that the cells cost at most `cost_max` together.
pub(crate) fn layout(
    tree: &Tree<'_>,
    areas: &[TraceArea],
    at: Rect,
    cost: impl Fn(&Cell) -> usize,
    cost_max: usize,
) -> Map {
    let mut area_min = AREA_MIN;
    loop {
        let scale = at.area() / tree.bytes(ROOT);
        if !scale.is_finite() {
            return Map::default();
        }
        let mut work = Work {
            tree,
            areas,
            scale,
            area_min,
            area_all: at.area(),
            map: Map::default(),
        };
        work.place(ROOT, at, false);
        // In the end nothing is large enough to be drawn by itself.
        let all: usize = work.map.cells.iter().map(&cost).sum();
        if all <= cost_max || area_min > at.area() {
            return work.map;
        }
        area_min *= 1.5;
    }
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Dir(usize),
    Cell(What),
}

struct Work<'a> {
    tree: &'a Tree<'a>,
    areas: &'a [TraceArea],
    /// Area of a byte.
    scale: f64,
    area_min: f64,
    area_all: f64,
    map: Map,
}

impl Work<'_> {
    fn place(&mut self, mut index: usize, at: Rect, mut grouped: bool) {
        // A directory that holds but another is that other.
        while let Some(dir) = self.tree.dir(index) {
            match dir.dirs.as_slice() {
                [only] if dir.files.is_empty() => index = *only,
                _ => break,
            }
        }
        let items = self.items(index);
        if !grouped && self.is_group(index) {
            self.map.groups.push(Group { at, dir: index });
            grouped = true;
        }
        let areas: Vec<f64> = items.iter().map(|(bytes, _)| bytes * self.scale).collect();
        for ((_, item), at) in items.into_iter().zip(squarify(&areas, at)) {
            match item {
                Item::Dir(dir) => self.place(dir, at, grouped),
                Item::Cell(what) => self.map.cells.push(Cell { at, what }),
            }
        }
    }

    /// What is drawn of a directory, largest first.
    fn items(&self, index: usize) -> Vec<(f64, Item)> {
        let Some(dir) = self.tree.dir(index) else {
            return Vec::new();
        };
        let mut items = Vec::new();
        let mut small = Sums::default();
        for dir in &dir.dirs {
            let bytes = self.tree.bytes(*dir);
            if bytes * self.scale >= self.area_min * DIR_FACTOR {
                items.push((bytes, Item::Dir(*dir)));
            } else if let Some(dir) = self.tree.dir(*dir) {
                small.add_all(&dir.sums);
            }
        }
        for file in &dir.files {
            let Some(area) = self.areas.get(*file) else {
                continue;
            };
            let bytes = float(area.bytes);
            if bytes * self.scale >= self.area_min {
                items.push((bytes, Item::Cell(What::File(*file))));
            } else {
                small.add(State::of(area), &Sum::of(area));
            }
        }
        for (state, sum) in small.iter().filter(|(_, sum)| sum.bytes > 0) {
            items.push((
                float(sum.bytes),
                Item::Cell(What::Small(index, state, *sum)),
            ));
        }
        // Stable: what is equal stays in the order of the tree.
        items.sort_by(|a, b| b.0.total_cmp(&a.0));
        items
    }

    fn is_group(&self, index: usize) -> bool {
        let share = |dir: usize| self.tree.bytes(dir) * self.scale / self.area_all;
        let parts = self.tree.dir(index).map_or(&[][..], |dir| &dir.dirs);
        let divides = parts.iter().any(|dir| share(*dir) >= GROUP_SHARE_MIN);
        share(index) <= GROUP_SHARE_MAX || !divides
    }
}

/// Divides a rectangle into parts with these areas, largest first, each as square as can be.
pub(crate) fn squarify(areas: &[f64], at: Rect) -> Vec<Rect> {
    let mut placed = Vec::with_capacity(areas.len());
    let mut rest = at;
    let mut left = areas;
    while !left.is_empty() {
        let side = rest.width.min(rest.height);
        let count = row_length(left, side);
        let (row, after) = left.split_at(count);
        let sum: f64 = row.iter().sum();
        // A row lies along the shorter side.
        let upright = rest.height <= rest.width;
        let longer = rest.width.max(rest.height);
        let depth = if side > 0.0 {
            (sum / side).min(longer)
        } else {
            0.0
        };
        let mut along = 0.0;
        for area in row {
            let share = if sum > 0.0 { area / sum } else { 0.0 };
            let length = (side * share).min(side - along).max(0.0);
            placed.push(if upright {
                Rect::new(rest.x, rest.y + along, depth, length)
            } else {
                Rect::new(rest.x + along, rest.y, length, depth)
            });
            along += length;
        }
        if upright {
            rest.x += depth;
            rest.width = (rest.width - depth).max(0.0);
        } else {
            rest.y += depth;
            rest.height = (rest.height - depth).max(0.0);
        }
        left = after;
    }
    placed
}

/// How many of the areas make the row along a side whose worst part is most square.
fn row_length(areas: &[f64], side: f64) -> usize {
    let Some(largest) = areas.first() else {
        return 0;
    };
    let mut sum = 0.0;
    let mut best = f64::INFINITY;
    let mut count = 0;
    for area in areas {
        sum += area;
        let square = sum * sum;
        let worst = (side * side * largest / square).max(square / (side * side * area));
        if worst > best {
            break;
        }
        best = worst;
        count += 1;
    }
    count.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::example;
    use super::*;

    const AT: Rect = Rect {
        x: 24.0,
        y: 100.0,
        width: 1152.0,
        height: 640.0,
    };

    #[track_caller]
    fn check_tiling(rects: &[Rect], areas: &[f64]) {
        let bounds = Rect::new(AT.x - 1e-6, AT.y - 1e-6, AT.width + 2e-6, AT.height + 2e-6);
        for (at, (rect, area)) in rects.iter().zip(areas).enumerate() {
            assert!(
                (rect.area() - area).abs() <= 1e-3 + area * 1e-6,
                "{at}: {rect:?}, not {area}"
            );
            assert!(
                rect.x >= bounds.x && rect.right() <= bounds.right(),
                "{rect:?}"
            );
            assert!(
                rect.y >= bounds.y && rect.bottom() <= bounds.bottom(),
                "{rect:?}"
            );
            for other in rects.iter().skip(at + 1) {
                let shrunk = rect.inset(1e-6);
                let common = shrunk.width > 0.0
                    && shrunk.height > 0.0
                    && shrunk.overlaps(&other.inset(1e-6));
                assert!(!common, "{rect:?} lies on {other:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn parts_have_their_areas_and_do_not_overlap(mut sizes in prop::collection::vec(1..1_000_000_u32, 1..60)) {
            sizes.sort_by_key(|size| std::cmp::Reverse(*size));
            let all: f64 = sizes.iter().map(|size| f64::from(*size)).sum();
            let areas: Vec<f64> = sizes.iter().map(|size| f64::from(*size) * AT.area() / all).collect();
            let rects = squarify(&areas, AT);
            prop_assert_eq!(rects.len(), areas.len());
            check_tiling(&rects, &areas);
        }
    }

    #[test]
    fn equal_parts_are_about_square() {
        let areas = vec![AT.area() / 40.0; 40];
        for rect in squarify(&areas, AT) {
            assert!((0.5..2.0).contains(&(rect.width / rect.height)), "{rect:?}");
        }
    }

    #[test]
    fn every_byte_of_an_image_has_the_same_area() {
        let trace = example::realistic();
        let tree = Tree::new(&trace.areas);
        let map = layout(&tree, &trace.areas, AT, |_| 1, 3000);
        let bytes_of = |what: &What| match what {
            What::File(file) => float(trace.areas[*file].bytes),
            What::Small(_, _, sum) => float(sum.bytes),
        };
        let scale = AT.area() / tree.bytes(ROOT);
        let areas: Vec<f64> = map
            .cells
            .iter()
            .map(|cell| bytes_of(&cell.what) * scale)
            .collect();
        let rects: Vec<Rect> = map.cells.iter().map(|cell| cell.at).collect();
        check_tiling(&rects, &areas);
        assert!(
            (areas.iter().sum::<f64>() - AT.area()).abs() < 1.0,
            "nothing is left out"
        );
        for (at, group) in map.groups.iter().enumerate() {
            let inner = group.at.inset(1e-3);
            assert!(
                !map.groups[at + 1..]
                    .iter()
                    .any(|other| inner.overlaps(&other.at.inset(1e-3)))
            );
        }
    }

    #[test]
    fn the_cost_is_kept() {
        let trace = example::realistic();
        let tree = Tree::new(&trace.areas);
        for most in [1000, 100, 10] {
            let map = layout(&tree, &trace.areas, AT, |_| 1, most);
            assert!((1..=most).contains(&map.cells.len()));
        }
    }
}
