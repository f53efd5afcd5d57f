//! Layers made by hand.

use std::io::Write as _;

use draught_codec::Decoder;
use draught_digest::Digest;
use draught_tree::{Entry, EntryKind, Kind, Meta, NodeId, Tree};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Applied, Limits, ReadError, Reader, TAIL_BYTES};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer in the making.
#[derive(Debug, Default, Clone)]
struct Layer {
    blob: Vec<u8>,
    entries: Vec<Value>,
}

impl Layer {
    /// Adds a member with this content; gives its offset.
    fn member(&mut self, content: &[u8]) -> u64 {
        let offset = self.blob.len() as u64;
        self.blob.extend(gzip(content));
        offset
    }

    fn entry(&mut self, entry: Value) {
        self.entries.push(entry);
    }

    /// Adds a file of one chunk in a member of its own, with padding and the next header behind it.
    fn file(&mut self, name: &str, content: &[u8]) {
        if self.blob.is_empty() {
            self.member(&[b'h'; 512]);
        }
        let padded = [content, &[0; 700], b"the next header"].concat();
        let offset = self.member(&padded);
        let digest = Digest::sha256(content).to_string();
        self.entry(json!({
            "name": name, "type": "reg", "size": content.len(), "offset": offset,
            "digest": digest, "chunkDigest": digest,
        }));
    }

    fn finish(self) -> (Vec<u8>, Digest) {
        let json = json!({ "version": 1, "entries": self.entries }).to_string();
        finish(self.blob, json.as_bytes())
    }

    fn read(self) -> Result<(Tree, Applied), ReadError> {
        let mut tree = Tree::new();
        let (blob, toc) = self.finish();
        let applied = apply(&blob, toc, &Limits::default(), &mut tree)?;
        Ok((tree, applied))
    }
}

/// Adds table and footer.
fn finish(mut blob: Vec<u8>, json: &[u8]) -> (Vec<u8>, Digest) {
    let offset = blob.len();
    let mut archive = draught_tar::Writer::new(Vec::new());
    let kind = EntryKind::File {
        bytes: json.len() as u64,
        chunks: Box::default(),
    };
    let path = b"stargz.index.json"[..].into();
    let meta = Meta::default();
    archive.entry(&Entry { path, meta, kind }).unwrap();
    archive.data(json).unwrap();
    blob.extend(gzip(&archive.finish().unwrap()));
    blob.extend(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
    blob.extend(format!("{offset:016x}STARGZ").bytes());
    blob.extend(b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
    (blob, Digest::sha256(json))
}

fn apply(blob: &[u8], toc: Digest, limits: &Limits, tree: &mut Tree) -> Result<Applied, ReadError> {
    let mut reader = Reader::new(Digest::sha256(blob), blob.len() as u64, toc, limits);
    let mut rounds = 0;
    while let Some(need) = reader.needs() {
        let range = usize::try_from(need.start).unwrap()..usize::try_from(need.end).unwrap();
        reader.give(need.start, &blob[range])?;
        rounds += 1;
        assert!(rounds <= 2, "tail and table, and no more");
    }
    reader.apply(tree)
}

/// A file's content, decoded from the blobs it lies in.
fn content(tree: &Tree, path: &str, blobs: &[&[u8]]) -> Vec<u8> {
    let node = tree.node(tree.lookup(path.as_bytes()).unwrap());
    let Kind::File { chunks, .. } = &node.kind else {
        panic!("{path} is no file");
    };
    let mut content = Vec::new();
    for chunk in chunks {
        let chunk = tree.map.chunk(*chunk).unwrap();
        let extent = tree.map.extent(chunk.extent).unwrap();
        let blob = blobs[extent.blob.index()];
        let start = usize::try_from(extent.offset.0).unwrap();
        let stored = &blob[start..start + extent.stored_bytes as usize];
        let mut decoded = Vec::new();
        Decoder::new()
            .decode(
                extent.compression,
                stored,
                extent.decoded_bytes,
                &mut decoded,
            )
            .unwrap();
        let start = usize::try_from(chunk.offset.0).unwrap();
        let piece = &decoded[start..start + chunk.bytes as usize];
        assert!(chunk.digest.verifies(piece));
        content.extend_from_slice(piece);
    }
    content
}

/// A file of two chunks and two small files, all in two members.
fn shared_members() -> Layer {
    let mut layer = Layer::default();
    let (first, second) = ([1_u8; 4096], [2_u8; 1000]);
    let at = layer.member(&[&[b'h'; 512][..], &first].concat());
    let then = layer.member(
        &[
            &second[..],
            &[0; 24],
            &[b'h'; 512],
            b"small",
            &[b'h'; 1019],
            b"other",
        ]
        .concat(),
    );
    let digest = |bytes: &[u8]| Digest::sha256(bytes).to_string();
    layer.entry(json!({
        "name": "large", "type": "reg", "size": 5096, "offset": at, "innerOffset": 512,
        "chunkSize": 4096, "chunkDigest": digest(&first), "digest": digest(b"of the whole, not used"),
    }));
    layer.entry(json!({
        "name": "large", "type": "chunk", "offset": then, "chunkOffset": 4096,
        "chunkDigest": digest(&second),
    }));
    for (name, inner) in [("small", 1536), ("other", 2560)] {
        layer.entry(json!({
            "name": name, "type": "reg", "size": 5, "offset": then, "innerOffset": inner,
            "digest": digest(name.as_bytes()),
        }));
    }
    layer
}

#[test]
fn chunks_that_share_a_member_are_chunks_of_one_extent() {
    let layer = shared_members();
    let (blob, _) = layer.clone().finish();
    let (tree, applied) = layer.read().unwrap();
    assert_eq!(
        content(&tree, "large", &[&blob]),
        [&[1; 4096][..], &[2; 1000]].concat()
    );
    assert_eq!(content(&tree, "small", &[&blob]), b"small");
    assert_eq!(content(&tree, "other", &[&blob]), b"other");
    let decoded = tree.map.extents.iter().map(|extent| extent.decoded_bytes);
    assert_eq!(decoded.collect::<Vec<_>>(), [512 + 4096, 2565]);
    assert_eq!(tree.map.chunks.len(), 4);
    assert_eq!(tree.map.blobs[0].device_bytes, 4 * 4096);
    assert_eq!(applied.chunk_bytes_max, 4096);
}

#[test]
fn entries_of_every_kind_are_what_they_say() {
    let mut layer = Layer::default();
    layer.file("./file", b"content");
    for entry in [
        json!({"name": "dir/", "type": "dir", "mode": 0o40_755, "uid": 7, "gid": 70_000,
            "modtime": "1969-12-31T23:59:58Z", "xattrs": {"user.b": "AAE=", "user.a": ""}}),
        json!({"name": "dir/link", "type": "symlink", "linkName": "../file", "mode": 0o777}),
        json!({"name": "hard", "type": "hardlink", "linkName": "./file"}),
        json!({"name": "char", "type": "char", "devMajor": 5, "devMinor": 300, "mode": 0o600}),
        json!({"name": "block", "type": "block", "devMajor": 7}),
        json!({"name": "pipe", "type": "fifo"}),
        json!({"name": "empty", "type": "reg", "NumLink": 3, "later": {"more": []}}),
    ] {
        layer.entry(entry);
    }
    let (tree, _) = layer.read().unwrap();
    let node = |path: &str| tree.node(tree.lookup(path.as_bytes()).unwrap());
    let meta = &node("dir").meta;
    assert_eq!((meta.mode, meta.uid, meta.gid), (0o755, 7, 70_000));
    assert_eq!((meta.mtime, meta.mtime_nsec), (-2, 0));
    let xattrs: Vec<_> = meta.xattrs.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(xattrs, [(&b"user.a"[..], &b""[..]), (b"user.b", b"\0\x01")]);
    assert_eq!(node("dir/link").kind, Kind::Symlink(b"../file"[..].into()));
    assert_eq!(node("file").names, 2);
    assert_eq!(tree.lookup(b"hard"), tree.lookup(b"file"));
    let (major, minor) = (5, 300);
    assert_eq!(node("char").kind, Kind::CharDevice { major, minor });
    let (major, minor) = (7, 0);
    assert_eq!(node("block").kind, Kind::BlockDevice { major, minor });
    assert_eq!(node("pipe").kind, Kind::Fifo);
    assert!(matches!(node("empty").kind, Kind::File { bytes: 0, .. }));
}

#[test]
fn a_table_that_is_larger_than_the_tail_is_asked_for() {
    let mut layer = Layer::default();
    layer.file("file", b"content");
    for index in 0..3000_u32 {
        let noise = Digest::sha256(&index.to_le_bytes()).hex();
        layer.entry(json!({"name": noise, "type": "dir"}));
    }
    let (blob, _) = layer.clone().finish();
    let (tree, applied) = layer.read().unwrap();
    assert!(applied.toc_stored_bytes > TAIL_BYTES);
    assert_eq!(tree.arena_len(), 3002);
    assert_eq!(content(&tree, "file", &[&blob]), b"content");
}

#[test]
fn marks_are_hidden_and_divide_what_comes_first() {
    let mut layer = Layer::default();
    layer.file("second", b"2");
    layer.file("first", b"1");
    layer.entries.swap(0, 1);
    layer.file("./.prefetch.landmark", b"\x0f");
    layer.file("later", b"3");
    layer.file("dir/.prefetch.landmark", b"a file like others");
    layer.entry(json!({"name": "stargz.index.json", "type": "reg"}));
    let (tree, applied) = layer.clone().read().unwrap();
    let nodes = ["second", "first"].map(|path| tree.lookup(path.as_bytes()).unwrap());
    assert_eq!(applied.prefetch, nodes);
    assert_eq!(tree.node(Tree::ROOT).children().unwrap().len(), 4);
    assert!(tree.lookup(b"dir/.prefetch.landmark").is_some());
    // Without a mark nothing is known.
    layer
        .entries
        .retain(|entry| entry["name"] != "./.prefetch.landmark");
    layer.file(".no.prefetch.landmark", b"\x0f");
    let (tree, applied) = layer.read().unwrap();
    assert_eq!(applied.prefetch, [] as [NodeId; 0]);
    assert_eq!(tree.node(Tree::ROOT).children().unwrap().len(), 4);
}

#[test]
fn upper_layers_hide_what_lower_ones_brought_and_its_chunks_are_dropped() {
    let mut lower = Layer::default();
    lower.file("gone", b"gone");
    lower.file("kept", b"kept");
    lower.file("replaced", b"old");
    lower.file("opaque/old", b"old too");
    let mut upper = Layer::default();
    upper.entry(json!({"name": "./.wh.gone", "type": "reg"}));
    upper.entry(json!({"name": "opaque/.wh..wh..opq", "type": "reg"}));
    upper.file("replaced", b"new");
    upper.file("opaque/new", b"new too");
    let (lower, upper) = (lower.finish(), upper.finish());
    let mut tree = Tree::new();
    for (blob, toc) in [&lower, &upper] {
        apply(blob, *toc, &Limits::default(), &mut tree).unwrap();
    }
    tree.drop_unused_chunks();
    let blobs = [&*lower.0, &*upper.0];
    let names: Vec<_> = tree.walk().map(|(path, _)| path).collect();
    let expect = ["", "/kept", "/opaque", "/opaque/new", "/replaced"];
    assert_eq!(names, expect.map(|name| name.as_bytes().to_vec()));
    assert_eq!(content(&tree, "kept", &blobs), b"kept");
    assert_eq!(content(&tree, "replaced", &blobs), b"new");
    assert_eq!(content(&tree, "opaque/new", &blobs), b"new too");
    assert_eq!((tree.map.chunks.len(), tree.map.extents.len()), (3, 3));
}

#[test]
fn a_layer_that_is_there_twice_is_one_blob() {
    let mut layer = Layer::default();
    layer.file("file", b"content");
    let (blob, toc) = layer.finish();
    let mut tree = Tree::new();
    for _ in 0..2 {
        apply(&blob, toc, &Limits::default(), &mut tree).unwrap();
    }
    tree.drop_unused_chunks();
    assert_eq!((tree.map.blobs.len(), tree.map.chunks.len()), (1, 1));
    assert_eq!(content(&tree, "file", &[&blob]), b"content");
    let place = tree.map.chunks[0].place.0;
    assert!(place + 4096 <= tree.map.blobs[0].device_bytes);
}

#[test]
fn of_a_member_with_much_behind_its_chunk_little_is_read() {
    let mut layer = Layer::default();
    let noise: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| *Digest::sha256(&n.to_le_bytes()).as_bytes())
        .collect();
    let offset = layer.member(&[b"content", &noise[..]].concat());
    layer.entry(json!({
        "name": "file", "type": "reg", "size": 7, "offset": offset,
        "digest": Digest::sha256(b"content").to_string(),
    }));
    let (blob, _) = layer.clone().finish();
    let (tree, _) = layer.read().unwrap();
    assert!(tree.map.extents[0].stored_bytes < 70_000);
    assert_eq!(content(&tree, "file", &[&blob]), b"content");
}

#[test]
fn what_nothing_verifies_is_refused_by_name() {
    let mut layer = shared_members();
    layer.entries[1]
        .as_object_mut()
        .unwrap()
        .remove("chunkDigest");
    let error = layer.read().unwrap_err();
    let is_it = matches!(&error, ReadError::NoDigest { path, offset: 4096 } if path == "large");
    assert!(is_it, "{error}");
    // Not even by the digest of the whole, which a reader of one chunk can't compare.
    let mut layer = Layer::default();
    layer.file("file", b"content");
    layer.entries[0]
        .as_object_mut()
        .unwrap()
        .remove("chunkDigest");
    layer.clone().read().unwrap();
    layer.entries[0].as_object_mut().unwrap().remove("digest");
    assert!(layer.read().unwrap_err().to_string().contains("\"file\""));
}

#[test]
fn a_table_of_another_digest_is_refused() {
    let mut layer = Layer::default();
    layer.file("file", b"content");
    let (blob, _) = layer.finish();
    let other = Digest::sha256(b"other");
    let error = apply(&blob, other, &Limits::default(), &mut Tree::new()).unwrap_err();
    assert!(matches!(error, ReadError::TocDigest { .. }), "{error}");
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let check = |changes: Value, expect: &str| {
        let mut layer = shared_members();
        for (at, fields) in changes.as_object().unwrap() {
            let entry = layer.entries[at.parse::<usize>().unwrap()]
                .as_object_mut()
                .unwrap();
            entry.extend(fields.as_object().unwrap().clone());
        }
        let error = layer.read().unwrap_err();
        let text = format!(
            "{error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        );
        assert!(text.contains(expect), "{changes}: {text}");
    };
    check(json!({"0": {"type": "dir"}}), "does not follow its file");
    check(json!({"2": {"type": "door"}}), "unknown type \"door\"");
    check(json!({"1": {"name": "other"}}), "does not follow its file");
    check(json!({"1": {"chunkOffset": 4095}}), "leave a gap");
    check(json!({"1": {"chunkOffset": 5096}}), "leave a gap");
    check(json!({"1": {"chunkSize": 999}}), "leave a gap");
    check(json!({"0": {"chunkOffset": 1}}), "one after another");
    check(
        json!({"0": {"chunkSize": 4000}, "1": {"chunkOffset": 4000}}),
        "no multiple of 4096",
    );
    check(json!({"0": {"size": 0}}), "empty file");
    check(json!({"0": {"size": -1}}), "invalid value");
    check(
        json!({"2": {"offset": 1_u64 << 40}}),
        "behind the layer's content",
    );
    check(json!({"2": {"innerOffset": 32 << 20}}), "32 MiB");
    check(json!({"2": {"innerOffset": u64::MAX}}), "32 MiB");
    check(json!({"2": {"digest": "md5:0"}}), "can't be read");
    check(
        json!({"2": {"modtime": "yesterday"}}),
        "time of modification",
    );
    check(json!({"2": {"xattrs": {"user.a": "?"}}}), "not base64");
    check(json!({"2": {"name": "../out"}}), "..");
    check(json!({"2": {"name": "large/below"}}), "not a directory");
}

#[test]
fn documents_that_are_no_table_are_refused() {
    for (json, expect) in [
        ("", "can't be understood"),
        ("[]", "can't be understood"),
        (r#"{"version": 1, "entries": []} x"#, "can't be understood"),
        (
            r#"{"version": 1, "entries": [{"name": "a"}]}"#,
            "can't be understood",
        ),
        (r#"{"version": 2, "entries": []}"#, "version 2"),
        (r#"{"entries": []}"#, "version 0"),
    ] {
        let (blob, toc) = finish(Vec::new(), json.as_bytes());
        let error = apply(&blob, toc, &Limits::default(), &mut Tree::new()).unwrap_err();
        assert!(error.to_string().contains(expect), "{json}: {error}");
    }
}

#[test]
fn limits_are_kept() {
    let mut layer = Layer::default();
    layer.file("file", b"content");
    layer.file("other", b"content");
    let (blob, toc) = layer.finish();
    let default = Limits::default();
    for limits in [
        Limits {
            entries_max: 1,
            ..default
        },
        Limits {
            toc_bytes_max: 100,
            ..default
        },
        Limits {
            toc_stored_bytes_max: 100,
            ..default
        },
    ] {
        let error = apply(&blob, toc, &limits, &mut Tree::new()).unwrap_err();
        assert!(matches!(error, ReadError::TooLarge { .. }), "{error}");
    }
    let limits = Limits {
        extent_bytes_max: 6,
        ..default
    };
    let error = apply(&blob, toc, &limits, &mut Tree::new()).unwrap_err();
    assert!(matches!(error, ReadError::Chunk { .. }), "{error}");
}

#[test]
fn a_footer_that_points_outside_is_refused() {
    let (blob, toc) = finish(Vec::new(), b"{}");
    for bytes in [0, 20, 51, blob.len() - 1] {
        let tail = &blob[blob.len() - bytes..];
        let outcome = apply(tail, toc, &Limits::default(), &mut Tree::new());
        assert!(outcome.is_err(), "{bytes}");
    }
    let mut beyond = blob.clone();
    let digit = blob.len() - 13 - 6 - 1;
    assert_eq!(&beyond[digit..digit + 7], b"0STARGZ");
    beyond[digit - 1] = b'f';
    let error = apply(&beyond, toc, &Limits::default(), &mut Tree::new()).unwrap_err();
    assert!(
        matches!(
            error,
            ReadError::TocOffset { offset: 0xf0, .. } | ReadError::Decompress(_)
        ),
        "{error}"
    );
}

proptest! {
    #[test]
    fn changed_layers_are_refused_or_the_same(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut blob, toc) = shared_members().finish();
        let mut right = Tree::new();
        let digest = Digest::sha256(&blob);
        apply(&blob, toc, &Limits::default(), &mut right).unwrap();
        for (at, value) in changes {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        let mut tree = Tree::new();
        if apply(&blob, toc, &Limits::default(), &mut tree).is_ok() {
            tree.map.blobs[0].digest = digest;
            for (extent, other) in tree.map.extents.iter_mut().zip(&right.map.extents) {
                // Where the last member ends is what the footer says, which nothing verifies.
                extent.stored_bytes = other.stored_bytes;
            }
            prop_assert_eq!(tree, right);
        }
    }
}
