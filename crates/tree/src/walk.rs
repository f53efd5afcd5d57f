//! Walking a tree.

use crate::node::{NodeId, Tree};

/// Depth first, names in byte order, a directory before its children: `(path, node)`, the root with
/// an empty path. A node with several names comes once for each.
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<(Vec<u8>, NodeId)>,
}

impl Tree {
    /// All names of the tree; see [`Walk`].
    #[must_use]
    pub fn walk(&self) -> Walk<'_> {
        Walk {
            tree: self,
            stack: vec![(Vec::new(), Self::ROOT)],
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = (Vec<u8>, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, id) = self.stack.pop()?;
        if let Some(children) = self.tree.node(id).children() {
            for (name, child) in children.iter().rev() {
                let mut child_path = Vec::with_capacity(path.len() + 1 + name.len());
                child_path.extend_from_slice(&path);
                child_path.push(b'/');
                child_path.extend_from_slice(name);
                self.stack.push((child_path, child.node));
            }
        }
        Some((path, id))
    }
}
