//! The files of a trace by directory, with sums of what each directory holds.

use std::collections::BTreeMap;

use draught_node::TraceArea;

use super::words::float;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Touched,
    /// It, or a part of it, was fetched for this image, and nobody has touched it.
    Ahead,
    /// Nobody has touched it, and what is here of it another image brought.
    Shared,
    /// Nothing of it is here.
    Absent,
}

/// All states, in the order in which sums are kept.
pub(crate) const STATES: [State; 4] = [State::Touched, State::Ahead, State::Shared, State::Absent];

impl State {
    pub(crate) fn of(area: &TraceArea) -> Self {
        if area.touched_at_ms.is_some() {
            Self::Touched
        } else if area.present == 0 && area.shared == 0 {
            Self::Absent
        } else if area.shared > 0 && area.shared >= area.present / 2 {
            Self::Shared
        } else {
            Self::Ahead
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Touched => 0,
            Self::Ahead => 1,
            Self::Shared => 2,
            Self::Absent => 3,
        }
    }
}

/// Files that are drawn as one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) present: u64,
    pub(crate) shared: u64,
    /// Of the files that were touched, the sum of the times, in milliseconds.
    pub(crate) touched_ms: f64,
}

impl Sum {
    pub(crate) fn of(area: &TraceArea) -> Self {
        Self {
            files: 1,
            bytes: area.bytes,
            present: area.present,
            shared: area.shared,
            touched_ms: area.touched_at_ms.map_or(0.0, float),
        }
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.present = self.present.saturating_add(other.present);
        self.shared = self.shared.saturating_add(other.shared);
        self.touched_ms += other.touched_ms;
    }
}

/// A sum for each state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sums([Sum; 4]);

impl Sums {
    pub(crate) fn add(&mut self, state: State, sum: &Sum) {
        if let Some(own) = self.0.get_mut(state.index()) {
            own.add(sum);
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (own, sum) in self.0.iter_mut().zip(&other.0) {
            own.add(sum);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (State, &Sum)> {
        STATES.into_iter().zip(&self.0)
    }

    /// As a size to draw: it does not saturate.
    pub(crate) fn bytes(&self) -> f64 {
        self.0.iter().map(|sum| float(sum.bytes)).sum()
    }
}

/// A directory. Files without content have no area and are not in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dir<'a> {
    pub(crate) name: &'a str,
    /// The directory it is in; the root is in itself.
    pub(crate) parent: usize,
    /// By index of the tree; only those that hold something.
    pub(crate) dirs: Vec<usize>,
    /// By index of the trace.
    pub(crate) files: Vec<usize>,
    /// Everything below it.
    pub(crate) sums: Sums,
}

/// Directories, each after the one it is in.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    dirs: Vec<Dir<'a>>,
}

/// The root of every tree.
pub(crate) const ROOT: usize = 0;

/// Levels of directories that are told apart; drawing goes as deep. No real image comes near, and a
/// hostile one gets long file names.
const DEPTH_MAX: usize = 32;

impl<'a> Tree<'a> {
    /// Sorts files into directories.
    pub(crate) fn new(areas: &'a [TraceArea]) -> Self {
        let mut tree = Self {
            dirs: vec![Dir::default()],
        };
        let mut known: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        // Neighbours are mostly in one directory: its whole path is looked at first.
        let mut last = ("", ROOT);
        for (index, area) in areas.iter().enumerate() {
            if area.bytes == 0 {
                continue;
            }
            let (parent, _) = area.path.rsplit_once('/').unwrap_or(("", ""));
            let dir = if last.0 == parent {
                last.1
            } else {
                tree.find(&mut known, parent)
            };
            last = (parent, dir);
            if let Some(dir) = tree.dirs.get_mut(dir) {
                dir.files.push(index);
                dir.sums.add(State::of(area), &Sum::of(area));
            }
        }
        tree.sum();
        tree
    }

    /// The directory with this path, made if need be.
    fn find(&mut self, known: &mut BTreeMap<(usize, &'a str), usize>, path: &'a str) -> usize {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.take(DEPTH_MAX).fold(ROOT, |parent, name| {
            *known.entry((parent, name)).or_insert_with(|| {
                self.dirs.push(Dir {
                    name,
                    parent,
                    ..Dir::default()
                });
                self.dirs.len() - 1
            })
        })
    }

    /// Adds what directories hold to those they are in.
    fn sum(&mut self) {
        for index in (1..self.dirs.len()).rev() {
            let (before, rest) = self.dirs.split_at_mut(index);
            let Some(dir) = rest.first() else { continue };
            if let Some(parent) = before
                .get_mut(dir.parent)
                .filter(|_| dir.sums.bytes() > 0.0)
            {
                parent.sums.add_all(&dir.sums);
                parent.dirs.push(index);
            }
        }
        for dir in &mut self.dirs {
            dir.dirs.reverse();
        }
    }

    pub(crate) fn dir(&self, index: usize) -> Option<&Dir<'a>> {
        self.dirs.get(index)
    }

    /// Bytes below a directory.
    pub(crate) fn bytes(&self, index: usize) -> f64 {
        self.dir(index).map_or(0.0, |dir| dir.sums.bytes())
    }

    /// The path of a directory, without a leading slash.
    pub(crate) fn path(&self, index: usize) -> String {
        let up = |at: &usize| self.dir(*at).map(|dir| dir.parent);
        let chain = std::iter::successors(Some(index), up);
        let mut names: Vec<&str> = chain
            .take_while(|at| *at != ROOT)
            .filter_map(|at| self.dir(at).map(|dir| dir.name))
            .collect();
        names.reverse();
        names.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::area;
    use super::*;

    #[test]
    fn directories_hold_what_is_below_them_in_any_order() {
        let areas = [
            area("a/b/x", 1),
            area("c", 2),
            area("a/y", 4),
            area("a/b/z", 8),
            area("a/b/0", 0),
        ];
        let tree = Tree::new(&areas);
        assert_eq!(tree.bytes(ROOT), 15.0);
        let root = tree.dir(ROOT).unwrap();
        assert_eq!(
            (root.files.as_slice(), root.dirs.as_slice()),
            (&[1][..], &[1][..])
        );
        assert_eq!(tree.bytes(1), 13.0);
        assert_eq!(tree.path(2), "a/b");
        assert_eq!(tree.dir(2).unwrap().files, [0, 3]);
    }

    #[test]
    fn bottomless_paths_end() {
        let deep = "d/".repeat(100_000) + "file";
        let areas = [area(&deep, 1)];
        let tree = Tree::new(&areas);
        assert_eq!(tree.dirs.len(), DEPTH_MAX + 1);
    }

    #[test]
    fn states_follow_from_what_is_here() {
        let check = |present, shared, touched_at_ms, expect| {
            let area = TraceArea {
                present,
                shared,
                touched_at_ms,
                ..area("a", 100)
            };
            assert_eq!(State::of(&area), expect);
        };
        check(0, 0, None, State::Absent);
        check(100, 0, None, State::Ahead);
        check(100, 10, None, State::Ahead);
        check(100, 100, None, State::Shared);
        check(0, 100, None, State::Shared);
        check(0, 0, Some(1), State::Touched);
    }
}
