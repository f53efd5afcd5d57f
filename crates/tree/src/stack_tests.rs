//! What a tree says of the layers below it, and trees beside each other.

use draught_digest::Digest;

use super::*;

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().into(),
        meta: Meta::default(),
        kind,
    }
}

fn dir(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

fn file(path: &str) -> Entry {
    let (bytes, chunks) = (0, Box::default());
    entry(path, EntryKind::File { bytes, chunks })
}

fn stack(layers: Vec<Vec<Entry>>) -> Result<Tree, ApplyError> {
    let mut tree = Tree::on_others();
    for layer in layers {
        tree.begin_layer();
        for entry in layer {
            tree.apply(entry, &Limits::default())?;
        }
    }
    tree.mark_hiding();
    Ok(tree)
}

/// Names, with `!` after one that is hidden and `*` after a directory that hides.
fn shown(tree: &Tree) -> Vec<String> {
    let name = |(path, id): (Vec<u8>, NodeId)| {
        let node = tree.node(id);
        let hidden = node.kind == Kind::CharDevice { major: 0, minor: 0 };
        let mut xattrs = node.meta.xattrs.iter();
        let hides = xattrs.any(|(name, value)| {
            (&**name, &**value) == (&b"trusted.overlay.opaque"[..], &b"y"[..])
        });
        let mark = match (hidden, hides) {
            (true, _) => "!",
            (_, true) => "*",
            _ => "",
        };
        format!("{}{mark}", String::from_utf8_lossy(&path[1..]))
    };
    tree.walk().skip(1).map(name).collect()
}

fn check(layers: Vec<Vec<Entry>>, expect: &[&str]) {
    assert_eq!(shown(&stack(layers).unwrap()), expect);
}

#[test]
fn whiteouts_stay_for_what_lies_below() {
    check(
        vec![vec![dir("d"), file("d/.wh.a"), file(".wh.b")]],
        &["b!", "d", "d/a!"],
    );
    // Also of what a layer of the tree itself brought.
    check(
        vec![vec![dir("d"), file("d/a")], vec![file("d/.wh.a")]],
        &["d", "d/a!"],
    );
    // What comes again is there.
    check(vec![vec![file(".wh.a")], vec![file("a")]], &["a"]);
}

#[test]
fn a_directory_in_place_of_something_else_hides_what_is_below() {
    check(vec![vec![file(".wh.a")], vec![dir("a")]], &["a*"]);
    check(
        vec![vec![file("a")], vec![dir("a"), file("a/b")]],
        &["a*", "a/b"],
    );
    // Whichever comes first in its layer.
    check(
        vec![vec![dir("a"), file("a/b"), file(".wh.a")]],
        &["a*", "a/b"],
    );
    // A directory over a directory shows what is below, and hides it still if it did.
    check(vec![vec![dir("a")], vec![dir("a")]], &["a"]);
    check(
        vec![
            vec![dir("a"), file("a/.wh..wh..opq")],
            vec![dir("a"), file("a/.wh.x")],
        ],
        &["a*"],
    );
}

#[test]
fn what_is_not_known_of_the_layers_below_is_refused() {
    let implied = |path: &str, parent: &str| {
        Err(ApplyError::Implied {
            path: path.to_owned(),
            parent: parent.to_owned(),
        })
    };
    assert_eq!(stack(vec![vec![file("d/a")]]), implied("d/a", "d"));
    assert_eq!(stack(vec![vec![file("d/.wh.a")]]), implied("d/.wh.a", "d"));
    let target = EntryKind::HardLink(b"below".as_slice().into());
    assert!(matches!(
        stack(vec![vec![entry("a", target)]]),
        Err(ApplyError::HardLink { .. })
    ));
    let target = EntryKind::HardLink(b"b".as_slice().into());
    let gone = vec![vec![file("b")], vec![file(".wh.b"), entry("a", target)]];
    assert!(matches!(stack(gone), Err(ApplyError::HardLink { .. })));
    let root = stack(vec![vec![file(".wh..wh..opq")]]);
    assert!(matches!(root, Err(ApplyError::Root { .. })));
}

/// A tree with one file whose chunk lies in this blob.
fn with_chunk(blob: &[u8], content: &[u8]) -> Tree {
    let mut tree = Tree::new();
    tree.begin_layer();
    let blob = Blob {
        digest: Digest::sha256(blob),
        stored_bytes: 100,
        device_bytes: BLOCK_BYTES,
    };
    let blob = tree.map.push_blob(blob).unwrap();
    let extent = Extent {
        blob,
        offset: BlobOffset(10),
        stored_bytes: 20,
        decoded_bytes: 30,
        compression: Compression::Gzip,
    };
    let chunk = Chunk {
        digest: Digest::sha256(content),
        extent: tree.map.push_extent(extent).unwrap(),
        offset: ChunkOffset(0),
        bytes: 30,
        place: DeviceOffset(0),
    };
    let chunks = vec![tree.map.push_chunk(chunk).unwrap()].into();
    let kind = EntryKind::File { bytes: 30, chunks };
    tree.apply(entry("f", kind), &Limits::default()).unwrap();
    tree
}

#[test]
fn trees_beside_each_other_keep_their_content() {
    let trees = vec![
        with_chunk(b"one", b"a"),
        with_chunk(b"two", b"b"),
        with_chunk(b"one", b"c"),
    ];
    let (tree, added) = Tree::beside(trees).unwrap();
    assert_eq!(tree.map.blobs.len(), 2);
    let mut places = Vec::new();
    for (index, content) in [b"a", b"b", b"c"].iter().enumerate() {
        let id = tree.lookup(format!("{index}/f").as_bytes()).unwrap();
        assert_eq!(id.0, added[index] + 1);
        let Kind::File { chunks, .. } = &tree.node(id).kind else {
            panic!("{index}/f is no file")
        };
        let chunk = tree.map.chunk(chunks[0]).unwrap();
        assert_eq!(chunk.digest, Digest::sha256(*content));
        places.push((tree.map.blob_of(chunk).unwrap(), chunk.place));
    }
    // Two places in the blob that came twice.
    let expect = [(0, 0), (1, 0), (0, BLOCK_BYTES)];
    assert_eq!(
        places,
        expect.map(|(blob, place)| (BlobId(blob), DeviceOffset(place)))
    );
}
