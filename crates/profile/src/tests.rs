use draught_digest::Digest;
use draught_tree::{
    Blob, BlobId, BlobOffset, Chunk, ChunkId, ChunkOffset, Compression, DeviceOffset, Entry,
    EntryKind, Extent, Meta, Tree,
};
use proptest::prelude::*;

use crate::*;

fn touch(path: &[u8], offset: u64, bytes: u64) -> Touch {
    Touch {
        path: path.to_vec(),
        offset,
        bytes,
        at_ms: 5,
    }
}

fn profile(touches: Vec<Touch>) -> Profile {
    Profile {
        reference: "registry.example.com/app:1".to_owned(),
        image: Some(Digest::sha256(b"manifest")),
        touches,
    }
}

fn refused(text: &str) -> String {
    let error = Profile::parse(text.as_bytes(), &Limits::default()).unwrap_err();
    error.to_string()
}

#[test]
fn a_profile_is_readable_text() {
    let text = profile(vec![touch(b"usr/bin/a%b\xff", 0, 10)]).encode();
    let text = String::from_utf8(text).unwrap();
    let line = r#"{"path":"usr/bin/a%25b%FF","offset":0,"bytes":10,"at_ms":5}"#;
    assert_eq!(text.lines().nth(1), Some(line));
    assert!(Profile::is_likely(text.as_bytes()) && !Profile::is_likely(b"usr/bin\n"));
}

#[test]
fn what_is_no_profile_is_refused_by_line() {
    let head = r#"{"draught_profile":1,"reference":"x"}"#;
    assert!(refused("").contains("first line"));
    assert!(refused(r#"{"draught_profile":2,"reference":"x"}"#).contains("version 2"));
    assert!(refused(r#"{"draught_profile":1,"reference":"x","more":1}"#).contains("first line"));
    let lines = [
        r#"{"path":"a","offset":0,"bytes":1}"#,
        r#"{"path":"a","offset":-1,"bytes":1,"at_ms":0}"#,
        r#"{"path":"/a","offset":0,"bytes":1,"at_ms":0}"#,
        r#"{"path":"a%4","offset":0,"bytes":1,"at_ms":0}"#,
        r#"{"path":"a%+1","offset":0,"bytes":1,"at_ms":0}"#,
        r#"{"path":"","offset":0,"bytes":1,"at_ms":0}"#,
        "nonsense",
    ];
    for line in lines {
        assert!(
            refused(&format!("{head}\n\n{line}\n")).contains("line 3"),
            "{line}"
        );
    }
    let limits = Limits {
        bytes_max: 1000,
        touches_max: 1,
        path_bytes_max: 3,
    };
    let good = r#"{"path":"abc","offset":0,"bytes":1,"at_ms":0}"#;
    let parse = |text: String| Profile::parse(text.as_bytes(), &limits);
    assert!(parse(format!("{head}\n{good}\n")).is_ok());
    assert!(matches!(
        parse(format!("{head}\n{good}\n{good}")),
        Err(ParseError::TooMany { .. })
    ));
    let long = good.replace("abc", "abcd");
    assert!(matches!(
        parse(format!("{head}\n{long}")),
        Err(ParseError::Path { .. })
    ));
    assert!(matches!(
        parse(" ".repeat(1001)),
        Err(ParseError::TooLong { .. })
    ));
}

#[test]
fn touches_that_follow_each_other_are_one() {
    let mut profile = profile(vec![
        touch(b"a", 0, 10),
        touch(b"a", 10, 5),
        touch(b"b", 15, 1),
        touch(b"a", 15, 1),
    ]);
    profile.compact();
    let expected = [touch(b"a", 0, 15), touch(b"b", 15, 1), touch(b"a", 15, 1)];
    assert_eq!(profile.touches, expected);
}

#[test]
fn paths_lead_to_the_chunks_that_the_bytes_lie_in() {
    let mut tree = Tree::new();
    tree.map.push_blob(Blob {
        digest: Digest::sha256(b"blob"),
        stored_bytes: 1 << 20,
        device_bytes: 1 << 20,
    });
    let chunks: Vec<ChunkId> = (0..3)
        .map(|index| {
            let extent = tree.map.push_extent(Extent {
                blob: BlobId(0),
                offset: BlobOffset(index * 100),
                stored_bytes: 100,
                decoded_bytes: 4096,
                compression: Compression::None,
            });
            let chunk = Chunk {
                digest: Digest::sha256(&[0]),
                extent: extent.unwrap(),
                offset: ChunkOffset(0),
                bytes: 4096,
                place: DeviceOffset(index * 4096),
            };
            tree.map.push_chunk(chunk).unwrap()
        })
        .collect();
    tree.begin_layer();
    let file = |path: &str, chunks: &[ChunkId]| Entry {
        path: path.as_bytes().into(),
        meta: Meta::default(),
        kind: EntryKind::File {
            bytes: chunks.len() as u64 * 4096,
            chunks: chunks.into(),
        },
    };
    let limits = draught_tree::Limits::default();
    tree.apply(file("d/two", &chunks[..2]), &limits).unwrap();
    tree.apply(file("one", &chunks[2..]), &limits).unwrap();
    let resolved = profile(vec![
        touch(b"one", 0, 1),
        touch(b"gone", 0, 1),
        touch(b"d/two", 4096, 1),
        touch(b"d", 0, 1),
        touch(b"d/two", 4095, 2),
    ])
    .resolve(&tree);
    assert_eq!(resolved.chunks, [chunks[2], chunks[1], chunks[0]]);
    assert_eq!(resolved.files.len(), 2);
    assert_eq!((resolved.unknown_paths, resolved.bytes), (2, 3 * 4096));
}

proptest! {
    #[test]
    fn every_profile_is_read_back(
        paths in prop::collection::vec(prop::collection::vec(1_u8.., 1..20), 0..10),
        numbers in any::<(u64, u64, u64)>(),
    ) {
        let paths = paths.into_iter().filter(|path| path[0] != b'/');
        let touches = paths.map(|path| Touch {
            path,
            offset: numbers.0,
            bytes: numbers.1,
            at_ms: numbers.2,
        });
        let profile = profile(touches.collect());
        prop_assert_eq!(Profile::parse(&profile.encode(), &Limits::default()).unwrap(), profile);
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<Vec<u8>>(), line in ".*") {
        let _any = Profile::parse(&text, &Limits::default());
        let text = format!("{{\"draught_profile\":1,\"reference\":\"x\"}}\n{line}");
        let _any = Profile::parse(text.as_bytes(), &Limits::default());
    }
}
