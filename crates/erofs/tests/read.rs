//! What is written here is read back; what erofs-utils write is read; bytes that are no image end in an error.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here fails the test"
)]

use std::path::Path;
use std::process::Command;

use draught_erofs::{
    Image, Inode, Layout, Limits, Options, Place, Placement, ReadError, Superblock, WriteError,
    read_tree, write,
};
use draught_testkit::{Scratch, facts, need, process};
use draught_tree::{ChunkId, DeviceOffset, EntryKind, Kind, Meta, Tree};
use proptest::prelude::*;

mod support;
use support::{Maker, everything, meta};

fn write_to_vec(tree: &Tree, placement: &Placement) -> Result<Vec<u8>, WriteError> {
    let mut image = Vec::new();
    write(tree, placement, &Options::default(), &mut image)?;
    Ok(image)
}

fn image(maker: &Maker) -> Vec<u8> {
    write_to_vec(&maker.tree, &Placement::of_blobs(&maker.tree.map)).unwrap()
}

/// Finds the chunks of a file again by where they lie: every index stands for what lies there.
fn chunks_of(maker: &Maker, image: &Image<'_>, inode: &Inode) -> Result<Box<[ChunkId]>, ReadError> {
    let Layout::Chunks { bits } = inode.layout else {
        panic!("a file without chunks");
    };
    let map = &maker.tree.map;
    let mut ids = Vec::new();
    let mut left = inode.bytes;
    for index in image.chunk_indexes(inode, inode.bytes.div_ceil(1 << bits))? {
        let mut place = DeviceOffset(u64::from(index.block) * 4096);
        let mut window = left.min(1 << bits);
        while window > 0 {
            let found = map.chunks.iter().position(|chunk| {
                let device = map.blob_of(chunk).unwrap().index() + 1;
                chunk.place == place && device == usize::from(index.device)
            });
            let id = ChunkId(u32::try_from(found.unwrap()).unwrap());
            let bytes = u64::from(map.chunk(id).unwrap().bytes);
            ids.push(id);
            place.0 += bytes;
            window -= bytes;
            left -= bytes;
        }
    }
    Ok(ids.into())
}

#[test]
fn everything_that_is_written_is_read_back() {
    let maker = everything(2);
    let bytes = image(&maker);
    let image = Image::open(&bytes).unwrap();
    let read = read_tree::<ReadError>(&image, &Limits::default(), &mut |inode| {
        chunks_of(&maker, &image, inode)
    });
    let mut tree = read.unwrap().tree;
    tree.map = maker.tree.map.clone();
    let content = |chunk: &_| maker.content(chunk);
    let got = facts::of_tree(&tree, &content);
    facts::assert_same(&got, &facts::of_tree(&maker.tree, &content));
    let again = write_to_vec(&tree, &Placement::of_blobs(&tree.map)).unwrap();
    assert!(again == bytes, "a copy is the same bytes");
}

#[test]
fn the_order_of_arrival_does_not_show() {
    let mut one = Maker::new(0);
    let mut other = Maker::new(0);
    let names = ["b", "a/z", "a/b", "c"];
    for name in names {
        one.add(name, meta(0o644), EntryKind::Fifo);
    }
    for name in names.iter().rev() {
        other.add(name, meta(0o644), EntryKind::Fifo);
    }
    assert_eq!(image(&one), image(&other));
}

fn check_foreign(args: &[&str]) {
    let Some(mkfs) = need::tool("mkfs.erofs") else {
        return;
    };
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    make_source(&source);
    let path = scratch.join("image");
    let mut command = Command::new(mkfs);
    // Attributes that many inodes share would go to an area of their own, which is not read here.
    process::run(
        command
            .args(["--quiet", "-x", "10000"])
            .args(args)
            .arg(&path)
            .arg(&source),
    );
    let bytes = fs_err::read(&path).unwrap();
    let image = Image::open(&bytes).unwrap();
    let mut contents = Vec::new();
    let read = read_tree::<ReadError>(&image, &Limits::default(), &mut |inode| {
        contents.push((inode.nid, content_in_image(&image, inode)?));
        Ok(Box::default())
    });
    let read = read.unwrap();
    let mut expected = facts::of_directory(&source);
    let mut got = facts::of_tree(&read.tree, &|_| Vec::new());
    for (path, id) in read.tree.walk() {
        if let Kind::File { .. } = read.tree.node(id).kind {
            let nid = read.nodes.iter().find(|(_, node)| *node == id).unwrap().0;
            let (_, content) = contents.iter().find(|(of, _)| *of == nid).unwrap();
            let digest = draught_digest::Digest::sha256(content);
            got.get_mut(&path).unwrap().content = Some(digest);
        }
    }
    for fact in expected.values_mut() {
        // Short inodes have the time of the image.
        if args.contains(&"-T0") {
            fact.mtime = (0, 0);
        }
    }
    facts::assert_same(&got, &expected);
}

fn content_in_image(image: &Image<'_>, inode: &Inode) -> Result<Vec<u8>, ReadError> {
    let Layout::Chunks { bits } = inode.layout else {
        return image.data(inode, 1 << 30).map(|data| data.into_owned());
    };
    let mut content = Vec::new();
    for index in image.chunk_indexes(inode, inode.bytes.div_ceil(1 << bits))? {
        let left = inode.bytes - u64::try_from(content.len()).unwrap();
        let bytes = left.min(1 << bits);
        if index.block == u32::MAX {
            content.resize(content.len() + usize::try_from(bytes).unwrap(), 0);
        } else {
            content.extend_from_slice(image.slice(
                "chunk",
                u64::from(index.block) * 4096,
                bytes,
            )?);
        }
    }
    Ok(content)
}

fn make_source(source: &Path) {
    fs_err::create_dir_all(source.join("dir/sub")).unwrap();
    for at in 0..500_usize {
        let name = source.join(format!("dir/{at}-{}", "n".repeat(at % 200)));
        fs_err::write(name, vec![b'x'; at * 37]).unwrap();
    }
    std::os::unix::fs::symlink("../somewhere", source.join("dir/link")).unwrap();
    std::os::unix::fs::symlink("l".repeat(4000), source.join("longlink")).unwrap();
    fs_err::hard_link(source.join("dir/0-"), source.join("hard")).unwrap();
    facts::set_xattr(&source.join("dir/sub"), "user.a", b"1");
    facts::set_xattr(&source.join("dir"), "user.b", &[7; 1000]);
}

#[test]
fn short_inodes_of_erofs_utils_are_read() {
    check_foreign(&["-Eforce-inode-compact", "-T0"]);
}

#[test]
fn long_inodes_of_erofs_utils_are_read() {
    check_foreign(&["-Eforce-inode-extended"]);
}

#[test]
fn chunked_files_of_erofs_utils_are_read() {
    check_foreign(&[
        "-Eforce-inode-extended,force-chunk-indexes",
        "--chunksize=4096",
    ]);
}

fn check_refused(maker: &Maker, placement: &Placement, expect: &str) {
    let error = write_to_vec(&maker.tree, placement).unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    let words = format!("{error}{}", source.unwrap_or_default());
    assert!(words.contains(expect), "{words:?} does not say {expect:?}");
}

#[test]
fn content_that_cannot_be_placed_is_named() {
    let device = |device, block| Some(Place::At { device, block });
    for (path, chunks, place, expect) in [
        (
            "dir/file",
            &[(0, 10)][..],
            Some(Place::Nowhere),
            "file \"/dir/file\": chunk 0 has no place",
        ),
        (
            "odd",
            &[(0, 10), (0, 10)],
            None,
            "file \"/odd\": chunk 1 begins at byte 10 of the file",
        ),
        (
            "far",
            &[(0, 8192)],
            device(1, u32::MAX - 1),
            "chunk 0 lies at block 4294967294",
        ),
        (
            "foreign",
            &[(0, 1)],
            device(2, 0),
            "chunk 0 is on device 2, the image has 1",
        ),
    ] {
        let mut maker = Maker::new(1);
        maker.file(path, meta(0o644), chunks);
        let mut placement = Placement::of_blobs(&maker.tree.map);
        if let Some(place) = place {
            placement.places[0] = place;
        }
        check_refused(&maker, &placement, expect);
    }
    let mut maker = Maker::new(0);
    let chunks = Box::default();
    maker.add("a/b", meta(0o644), EntryKind::File { bytes: 5, chunks });
    let expect = "file \"/a/b\": its chunks have 0 bytes, its size is 5";
    check_refused(&maker, &Placement::default(), expect);
}

#[test]
fn inodes_that_cannot_be_written_are_named() {
    let with = |name: &str, bytes: usize| Meta {
        xattrs: vec![(name.as_bytes().into(), vec![1; bytes].into())],
        ..meta(0o644)
    };
    let device = EntryKind::CharDevice {
        major: 4096,
        minor: 0,
    };
    let long = format!("user.{}", "n".repeat(256));
    for (kind, meta, expect) in [
        (
            EntryKind::Symlink(Box::default()),
            meta(0o777),
            "\"/special\": a target of 0 bytes",
        ),
        (device, meta(0o644), "device number 4096:0"),
        (
            EntryKind::Fifo,
            with("user.v", 65_536),
            "its value has 65536 bytes",
        ),
        (EntryKind::Fifo, with(&long, 1), "its name has 261 bytes"),
    ] {
        let mut maker = Maker::new(0);
        maker.add("special", meta, kind);
        check_refused(&maker, &Placement::default(), expect);
    }
}

#[test]
fn attributes_that_the_kernel_has_no_name_for_are_counted() {
    let mut maker = Maker::new(0);
    let mut meta = meta(0o644);
    for name in [
        "com.apple.provenance",
        "system.nfs4_acl",
        "user.",
        "user.kept",
    ] {
        meta.xattrs.push((name.as_bytes().into(), Box::default()));
    }
    meta.xattrs.sort();
    maker.add("file", meta, EntryKind::Fifo);
    let mut image = Vec::new();
    let summary = write(
        &maker.tree,
        &Placement::default(),
        &Options::default(),
        &mut image,
    );
    assert_eq!(summary.unwrap().xattrs_left_out, 3);
    let image = Image::open(&image).unwrap();
    let read = read_tree::<ReadError>(&image, &Limits::default(), &mut |_| Ok(Box::default()));
    let tree = read.unwrap().tree;
    let node = tree.node(tree.lookup(b"file").unwrap());
    assert_eq!(
        node.meta.xattrs,
        vec![(b"user.kept"[..].into(), Box::default())]
    );
}

/// A small image with every kind of inode, inline tails, blocks and chunk indexes.
fn small() -> (Maker, Vec<u8>) {
    let mut maker = Maker::new(1);
    maker.file("a/file", meta(0o644), &[(0, 5000)]);
    maker.add(
        "a/link",
        meta(0o777),
        EntryKind::Symlink(b"file"[..].into()),
    );
    maker.add("hard", meta(0), EntryKind::HardLink(b"a/file"[..].into()));
    maker.add(
        "null",
        meta(0o666),
        EntryKind::CharDevice { major: 1, minor: 3 },
    );
    let mut with = meta(0o644);
    with.xattrs = vec![(b"user.x"[..].into(), b"value"[..].into())];
    maker.add("x", with, EntryKind::Socket);
    for at in 0..40 {
        maker.add(
            format!("many/{at}{}", "n".repeat(200)),
            meta(0o644),
            EntryKind::Fifo,
        );
    }
    let bytes = image(&maker);
    (maker, bytes)
}

/// Reads whatever it is, within small limits.
fn read_all(bytes: &[u8]) -> Result<usize, ReadError> {
    let limits = Limits {
        names_max: 1000,
        directory_bytes_max: 1 << 20,
        chunk_refs_max: 1000,
        loose_bytes_max: 1 << 16,
        ..Limits::default()
    };
    let image = Image::open(bytes)?;
    let read = read_tree::<ReadError>(&image, &limits, &mut |inode| {
        let count = inode.bytes.div_ceil(4096);
        let indexes = image.chunk_indexes(inode, count)?;
        Ok(indexes.map(|index| ChunkId(index.block)).collect())
    })?;
    Ok(read.tree.arena_len())
}

/// Without its checksum, so that changes of the superblock get further.
fn unchecked(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[1024 + 8..1024 + 12].fill(0);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_images_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        interesting in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = unchecked(small().1);
        // Half of the changes go to the superblock and the first inodes.
        let span = if interesting { 512 } else { bytes.len() };
        let base = if interesting { 4096 } else { 0 };
        for (at, value) in changes {
            let at = base + at.index(span);
            let last = bytes.len() - 1;
            bytes[at.min(last)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Whatever it says, it must say it within the limits.
        if let Ok(nodes) = read_all(&bytes) {
            prop_assert!(nodes <= 1001);
        }
    }
}

#[test]
fn a_directory_that_contains_itself_is_refused() {
    let (_, mut bytes) = small();
    bytes = unchecked(bytes);
    // The root's first entry that is no dot: its inode becomes the root.
    let image = Image::open(&bytes).unwrap();
    let root = u64::from(image.superblock().root_nid);
    let (a, _) = (image.inode(root).unwrap(), ());
    assert_eq!(a.file_type(), 0o040_000);
    let start = 4096 + 64;
    let entry = (0..8)
        .map(|at| start + at * 12)
        .find(|at| bytes[at + 10] == 2 && u64::from(bytes[*at]) != root)
        .unwrap();
    let root = root.to_le_bytes();
    bytes[entry..entry + 8].copy_from_slice(&root);
    let error = read_all(&bytes).unwrap_err();
    assert!(
        error.to_string().contains("a directory with two names"),
        "{error}"
    );
}

#[test]
fn other_images_are_refused_by_name() {
    let (_, bytes) = small();
    let change = |at: usize, value: u8| {
        let mut bytes = unchecked(bytes.clone());
        bytes[1024 + at] = value;
        bytes
    };
    for (bytes, expect) in [
        (vec![0; 10], "ends before the end of the superblock"),
        (vec![0; 4096], "no EROFS superblock"),
        (change(12, 9), "blocks of 2^9 bytes"),
        (change(80, 0x1F), "incompatible features 0x13"),
        (
            {
                let mut bytes = bytes.clone();
                bytes[1024 + 50] ^= 1;
                bytes
            },
            "checksum",
        ),
    ] {
        let error = Superblock::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    }
}
