//! In which order entries are stored.

use super::names::{self, WHITEOUT};
use super::toc::{Index, ItemKind, Toc};

/// The name that hides everything of lower layers in its directory.
const OPAQUE: &str = ".wh..wh..opq";

/// All items that are still there, in the order of the archive but that what a start needs comes first.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) first: Vec<Index>,
    pub(super) rest: Vec<Index>,
    /// How many of the wanted files there are.
    pub(super) found: u64,
}

/// Puts items in order. Directories come before what is in them, targets before links, and whiteouts that came
/// before a name or its neighbours still do.
///
/// Where the order of entries means more than that nothing is moved, see [`Toc::is_fixed`].
pub(super) fn order(toc: &Toc, wanted: &[Vec<u8>]) -> Order {
    let mut moving = Moving {
        toc,
        moved: vec![false; toc.items.len()],
        first: Vec::new(),
    };
    let mut found = 0;
    if !toc.is_fixed() {
        let paths = wanted
            .iter()
            .filter_map(|path| names::normalize_wanted(path));
        for path in paths {
            found += u64::from(moving.path(&path));
        }
    }
    let Moving { moved, first, .. } = moving;
    let rest = toc.items.iter().zip(moved).enumerate();
    let rest = rest
        .filter(|(_, (item, moved))| !item.hidden && !moved)
        .filter_map(|(at, _)| Index::try_from(at).ok());
    Order {
        first,
        rest: rest.collect(),
        found,
    }
}

struct Moving<'a> {
    toc: &'a Toc,
    moved: Vec<bool>,
    first: Vec<Index>,
}

impl Moving<'_> {
    /// Moves what is at this path, after all that has to come before it; whether it is there, and no directory.
    fn path(&mut self, path: &str) -> bool {
        let is_wanted = |index: &Index| {
            let item = self.toc.item(*index);
            item.is_some_and(|item| !matches!(item.kind, ItemKind::Directory))
        };
        let Some(index) = self.toc.find(path).filter(is_wanted) else {
            return false;
        };
        if let Some(ItemKind::HardLink {
            inode: Some(inode), ..
        }) = self.toc.item(index).map(|item| &item.kind)
            && let Some(inode) = self.toc.item(*inode)
        {
            self.one(self.toc.find(&inode.path), &inode.path);
        }
        self.one(Some(index), path);
        true
    }

    /// Moves an item that is no link, or whose target was moved.
    fn one(&mut self, index: Option<Index>, path: &str) {
        let Some(index) = index else {
            return;
        };
        let mut paths: Vec<&str> = names::parents(path).collect();
        paths.reverse();
        paths.push(path);
        for path in paths {
            let name = path.rsplit('/').next().unwrap_or_default();
            let whiteout = names::sibling(path, &format!("{WHITEOUT}{name}"));
            self.place_if_before(&whiteout, index);
            self.place(self.toc.find(path));
            self.place_if_before(&names::child(path, OPAQUE), index);
        }
    }

    fn place_if_before(&mut self, path: &str, index: Index) {
        let found = self.toc.find(path);
        self.place(found.filter(|found| *found < index));
    }

    fn place(&mut self, index: Option<Index>) {
        let Some(index) = index else {
            return;
        };
        let moved = usize::try_from(index).ok();
        let moved = moved.and_then(|index| self.moved.get_mut(index));
        if let Some(moved) = moved.filter(|moved| !**moved) {
            *moved = true;
            self.first.push(index);
        }
    }
}
