//! What lies below a snapshot, as few filesystems as possible: the lazy layers of a chain are one, whatever lies
//! between them.

use draught_digest::{Algorithm, Digest, Hasher};
use draught_importer::Part;
use draught_node::Content;
use draught_oci::{Descriptor, media_type};

use crate::record::{Lazy, Record, Role};

/// One of the directories that are stacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Level {
    /// The files of a snapshot that a client unpacked, by its identity.
    Files(u64),
    /// All of an image that is mounted.
    Image(usize),
    /// A directory of an image that is mounted.
    Part(usize, usize),
}

/// An image to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Under which digest the store keeps it.
    pub(crate) digest: Digest,
    pub(crate) content: Content,
    /// The uppermost lazy layer of it: its image has all blobs.
    pub(crate) top: Lazy,
}

/// What a chain of snapshots is mounted from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stack {
    /// The lowest first.
    pub(crate) levels: Vec<Level>,
    pub(crate) images: Vec<Needed>,
}

impl Stack {
    /// Of snapshots on each other, the lowest first.
    pub(crate) fn of<'a>(chain: impl Iterator<Item = &'a Record>) -> Self {
        let mut stack = Self::default();
        let mut layers = Layers::default();
        let mut top = None;
        for record in chain {
            match &record.lazy {
                None => {
                    layers.end();
                    stack.levels.push(Level::Files(record.id));
                    layers.is_on_others = true;
                }
                Some(lazy) => match &lazy.role {
                    Role::Data => {}
                    Role::Whole => {
                        layers.end();
                        stack.levels.push(Level::Image(stack.images.len()));
                        stack.images.push(Needed {
                            digest: lazy.image,
                            content: Content::Whole,
                            top: lazy.clone(),
                        });
                        layers.is_on_others = true;
                    }
                    Role::Layer { toc, bytes } => {
                        if !layers.is_open {
                            stack
                                .levels
                                .push(Level::Part(usize::MAX, layers.parts.len()));
                        }
                        layers.push(lazy.blob, *bytes, *toc);
                        top = Some(lazy);
                    }
                },
            }
        }
        let Some(top) = top.cloned() else {
            return stack;
        };
        let image = stack.images.len();
        let is_alone = layers.is_one_alone();
        for level in &mut stack.levels {
            if let Level::Part(of, _) = level {
                *of = image;
                if is_alone {
                    *level = Level::Image(image);
                }
            }
        }
        stack.images.push(Needed {
            // Of these layers, and known since the uppermost was committed.
            digest: top.image,
            content: Content::Parts(layers.parts),
            top,
        });
        stack
    }
}

impl Stack {
    /// Takes an image from a directory of a larger one, whose parts begin with the same.
    pub(crate) fn take_from(&mut self, index: usize, reference: &str, larger: Layers) {
        let Some(needed) = self.images.get_mut(index) else {
            return;
        };
        needed.digest = larger.digest();
        needed.top.reference = reference.to_owned();
        needed.content = Content::Parts(larger.parts);
        for level in &mut self.levels {
            if *level == Level::Image(index) {
                *level = Level::Part(index, 0);
            }
        }
    }
}

/// Layers with tables of their own, gathered into parts.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) parts: Vec<Part>,
    /// Whether the next layer goes onto the last part.
    is_open: bool,
    /// Whether anything else lies below the next part.
    is_on_others: bool,
}

impl Layers {
    /// A layer onto what is there.
    pub(crate) fn push(&mut self, blob: Digest, bytes: u64, toc: Digest) {
        let layer = (
            Descriptor::new(media_type::LAYER_TAR_GZIP, blob, bytes),
            toc,
        );
        match self.parts.last_mut() {
            Some(part) if self.is_open => part.layers.push(layer),
            _ => self.parts.push(Part {
                layers: vec![layer],
                is_on_others: self.is_on_others,
            }),
        }
        self.is_open = true;
        self.is_on_others = true;
    }

    /// Something that is not read here.
    pub(crate) fn gap(&mut self) {
        self.end();
        self.is_on_others = true;
    }

    fn end(&mut self) {
        self.is_open = false;
    }

    /// What stands for exactly these layers, parted like this.
    pub(crate) fn digest(&self) -> Digest {
        digest(&self.parts)
    }

    fn is_one_alone(&self) -> bool {
        matches!(self.parts.as_slice(), [part] if !part.is_on_others)
    }
}

fn digest(parts: &[Part]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(b"draught stack 1\n");
    for part in parts {
        let on = if part.is_on_others {
            "others"
        } else {
            "nothing"
        };
        hasher.update(format!("on {on}\n").as_bytes());
        for (layer, toc) in &part.layers {
            hasher.update(format!("{} {} {toc}\n", layer.digest, layer.size).as_bytes());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, Labels};

    fn record(id: u64, lazy: Option<Role>) -> Record {
        let name = Digest::sha256(&id.to_be_bytes());
        let lazy = lazy.map(|role| Lazy {
            reference: "r.lan/a".to_owned(),
            manifest: Digest::sha256(b"manifest"),
            blob: name,
            image: Digest::sha256(b"image"),
            role,
        });
        Record {
            id,
            kind: Kind::Committed,
            parent: String::new(),
            labels: Labels::new(),
            created: 0,
            updated: 0,
            bytes: 0,
            inodes: 0,
            lazy,
            eager: None,
        }
    }

    fn layer(id: u64) -> Record {
        let toc = Digest::sha256(b"toc");
        record(id, Some(Role::Layer { toc, bytes: 10 }))
    }

    fn plain(id: u64) -> Record {
        record(id, None)
    }

    fn levels(chain: &[Record]) -> (Vec<Level>, usize) {
        let stack = Stack::of(chain.iter());
        (stack.levels, stack.images.len())
    }

    #[test]
    fn all_lazy_layers_are_one_filesystem() {
        use Level::{Files, Image, Part};
        assert_eq!(levels(&[]), (vec![], 0));
        assert_eq!(levels(&[plain(1), plain(2)]), (vec![Files(1), Files(2)], 0));
        assert_eq!(levels(&[layer(1), layer(2)]), (vec![Image(0)], 1));
        assert_eq!(
            levels(&[layer(1), plain(2), layer(3), layer(4), plain(5)]),
            (vec![Part(0, 0), Files(2), Part(0, 1), Files(5)], 1)
        );
        assert_eq!(
            levels(&[plain(1), layer(2)]),
            (vec![Files(1), Part(0, 0)], 1)
        );
        let whole = [
            record(1, Some(Role::Data)),
            record(2, Some(Role::Whole)),
            plain(3),
        ];
        assert_eq!(levels(&whole), (vec![Image(0), Files(3)], 1));
    }

    #[test]
    fn what_is_put_together_differently_is_something_else() {
        let of = |chain: &[Record]| match &Stack::of(chain.iter()).images[0].content {
            Content::Parts(parts) => digest(parts),
            Content::Whole => panic!("these are layers"),
        };
        let all = [
            of(&[layer(1), layer(2)]),
            of(&[layer(2), layer(1)]),
            of(&[layer(1)]),
            of(&[layer(1), plain(3), layer(2)]),
            of(&[plain(3), layer(1), layer(2)]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other != one), "{index}");
        }
        // Whatever it is that lies in between.
        let other = of(&[layer(1), plain(7), layer(2)]);
        assert_eq!(other, all[3]);
    }
}
