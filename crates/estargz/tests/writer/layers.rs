//! Layers as a whole.

use std::num::NonZeroUsize;

use draught_estargz::{WriteError, WriteOptions};
use draught_tar::{Extra, Limits, Reader, Writer};
use draught_testkit::images;
use draught_tree::{Entry, EntryKind, Meta};

use crate::support::{self, Archive, check, file, noise, options, write};

/// The layers with every kind of entry, without names that the format can't express.
fn torture() -> Vec<Vec<u8>> {
    let layers = images::torture_layers().into_iter();
    layers.map(|layer| expressible(&layer)).collect()
}

/// An archive without those of its entries that the format has no way to express.
pub(crate) fn expressible(archive: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(archive, Limits::default());
    let mut writer = Writer::new(Vec::new());
    while let Some(entry) = reader.next_entry().unwrap() {
        let replaced_by_directory =
            *entry.path == *b"twice/to-dir" && entry.kind != EntryKind::Directory;
        if str::from_utf8(&entry.path).is_ok() && !replaced_by_directory {
            writer.entry_with(&entry, reader.extra()).unwrap();
            std::io::copy(&mut reader, &mut writer).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn every_kind_of_entry_and_every_trick_of_layers_is_kept() {
    let layers = torture();
    check(&layers, &options());
    check(&layers, &WriteOptions::default());
    let packed = WriteOptions {
        pack_bytes: 100_000,
        ..options()
    };
    let loose = check(&layers, &options());
    let packed = check(&layers, &packed);
    assert!(packed[1].blob.len() < loose[1].blob.len());
    assert!(packed[1].written.members < loose[1].written.members / 10);
    assert_eq!(packed[1].written.chunks, loose[1].written.chunks);
}

#[test]
fn threads_do_not_change_a_byte() {
    for pack_bytes in [0, 50_000] {
        let mut archive = Archive::new();
        for number in 0..200_u32 {
            let bytes = 1 << (number % 18);
            archive.file(&format!("file-{number}"), &noise(bytes, number.into()));
        }
        let archive = archive.finish();
        let of = |threads| {
            let options = WriteOptions {
                threads: NonZeroUsize::new(threads).unwrap(),
                pack_bytes,
                ..options()
            };
            write(&archive, &options).unwrap().blob
        };
        let one = of(1);
        for threads in [2, 7] {
            assert!(of(threads) == one);
        }
    }
}

#[test]
fn files_are_cut_at_chunks() {
    let mut archive = Archive::new();
    for bytes in [0, 1, 8191, 8192, 8193, 16_384, 40_000] {
        archive.file(&format!("{bytes}"), &noise(bytes, 1));
    }
    let archive = archive.finish();
    let layers = check(&[archive], &options());
    let chunks = |name: &str| {
        let toc = layers[0].toc();
        toc.iter().filter(|entry| entry["name"] == name).count()
    };
    for (name, expect) in [
        ("0", 1),
        ("1", 1),
        ("8191", 1),
        ("8192", 1),
        ("8193", 2),
        ("16384", 2),
        ("40000", 5),
    ] {
        assert_eq!(chunks(name), expect, "{name}");
    }
    assert_eq!(layers[0].written.chunks, 12);
    let first = layers[0].toc_entry("8193");
    assert_eq!(
        (&first["chunkSize"], &first["size"]),
        (&8192.into(), &8193.into())
    );
}

#[test]
fn an_empty_layer_is_one() {
    let layers = check(&[Archive::new().finish()], &options());
    assert_eq!(
        (layers[0].written.entries, layers[0].written.chunks),
        (0, 0)
    );
    let toc = layers[0].toc();
    assert_eq!(toc.len(), 1);
    assert_eq!(toc[0]["name"], ".no.prefetch.landmark");
}

#[test]
fn what_was_written_can_be_written_again() {
    let mut archive = Archive::new();
    archive.dir("dir").file("dir/file", b"content");
    let archive = archive.finish();
    let first = write(&archive, &options()).unwrap();
    let prefetched = WriteOptions {
        prefetch: vec![b"dir/file".to_vec()],
        ..options()
    };
    let second = write(&first.decoded(), &prefetched).unwrap();
    let third = write(&second.decoded(), &options()).unwrap();
    assert_eq!(first.blob, third.blob);
    assert_eq!(second.toc().len(), 3);
}

#[test]
fn names_of_owners_and_unknown_records_are_kept() {
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let extra = |user, group| Extra {
        user: bytes(user),
        group: bytes(group),
        records: vec![(bytes("VENDOR.key"), bytes("value"))],
    };
    let extras = [
        (0, extra("root", "root")),
        (0, extra("root", "staff")),
        (5, extra("games", "staff")),
        (5, extra("games", "staff")),
    ];
    let mut writer = Writer::new(Vec::new());
    for (number, (uid, extra)) in extras.iter().enumerate() {
        let meta = Meta {
            uid: *uid,
            ..Meta::default()
        };
        let path = bytes(&number.to_string());
        let kind = EntryKind::Fifo;
        writer
            .entry_with(&Entry { path, meta, kind }, extra)
            .unwrap();
    }
    let archive = writer.finish().unwrap();
    for prefetch in [vec![], vec![b"3".to_vec()]] {
        let options = WriteOptions {
            prefetch,
            ..options()
        };
        let layer = check(std::slice::from_ref(&archive), &options).remove(0);
        let decoded = layer.decoded();
        let mut reader = Reader::new(&decoded[..], Limits::default());
        let mut found = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            let number = String::from_utf8_lossy(&entry.path).parse::<usize>();
            if let Ok(number) = number {
                assert_eq!(reader.extra(), &extras[number].1);
                found += 1;
            }
        }
        assert_eq!(found, extras.len());
    }
    let layer = write(&archive, &options()).unwrap();
    let said = |number: &str| {
        let entry = layer.toc_entry(number);
        (entry["userName"].clone(), entry["groupName"].clone())
    };
    // Readers keep in mind whom a number was said to be.
    assert_eq!(said("0"), ("root".into(), "root".into()));
    assert_eq!(said("1"), (serde_json::Value::Null, "staff".into()));
    assert_eq!(said("2"), ("games".into(), serde_json::Value::Null));
    assert_eq!(said("3").0, serde_json::Value::Null);
}

#[test]
fn holes_of_sparse_files_are_zeros() {
    // Of GNU tar's format 1.0: a map before the data.
    let mut records = Vec::new();
    for record in [
        "22 GNU.sparse.major=1\n",
        "22 GNU.sparse.minor=0\n",
        "25 GNU.sparse.name=holes\n",
        "31 GNU.sparse.realsize=3000000\n",
    ] {
        records.extend(record.bytes());
    }
    let mut archive = raw_header(b'x', "pax", records.len());
    archive.extend(padded(&records));
    archive.extend(raw_header(b'0', "stored", 512 + 4));
    archive.extend(padded(b"1\n2000000\n4\n"));
    archive.extend(padded(b"data"));
    archive.extend([0; 1024]);
    for prefetch in [vec![], vec![b"holes".to_vec()]] {
        let options = WriteOptions {
            prefetch,
            ..options()
        };
        let layers = check(std::slice::from_ref(&archive), &options);
        assert_eq!(layers[0].toc_entry("holes")["size"], 3_000_000);
        assert!(layers[0].blob.len() < 100_000);
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

fn raw_header(flag: u8, name: &str, bytes: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
    header[148..156].fill(b' ');
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn millions_of_headers_are_not_one_member() {
    let mut archive = Archive::new();
    archive.file("first", b"1");
    for number in 0..5000 {
        archive.entry(&format!("pipe-{number}"), EntryKind::Fifo);
    }
    archive.file("last", b"2");
    let layers = check(&[archive.finish()], &options());
    // Its headers, the landmark, two files, and what 2.5 MB of headers are cut into.
    assert_eq!(layers[0].written.members, 4 + 2);
}

fn refused(archive: Archive) -> String {
    let error = write(&archive.finish(), &options()).unwrap_err();
    assert!(error.is_limit_of_format(), "{error:?}");
    error.to_string()
}

#[test]
fn what_the_format_cannot_say_is_refused_by_name() {
    let check = |make: &dyn Fn(&mut Archive), path: &str, why: &str| {
        let mut archive = Archive::new();
        make(&mut archive);
        let error = refused(archive);
        assert!(error.contains(path) && error.contains(why), "{error}");
    };
    let bytes = |archive: &mut Archive, path: &[u8], kind, mtime| {
        let meta = Meta {
            mtime,
            ..Meta::default()
        };
        let path = path.into();
        archive.0.entry(&Entry { path, meta, kind }).unwrap();
    };
    let fifo = || EntryKind::Fifo;
    check(&|it| bytes(it, b"a/\xff", fifo(), 0), "a/\u{fffd}", "UTF-8");
    let target = || EntryKind::Symlink(b"\xff"[..].into());
    check(&|it| bytes(it, b"link", target(), 0), "link", "UTF-8");
    check(
        &|it| bytes(it, b"old", fifo(), i64::MIN / 2),
        "old",
        "years",
    );
    check(&|it| bytes(it, b"a/../b", fifo(), 0), "a/../b", "..");
    let below = |it: &mut Archive| {
        it.entry("link", EntryKind::Symlink(b"dir"[..].into()));
        it.file("link/file", b"");
    };
    check(&below, "link/file", "no directory");
    let through = |it: &mut Archive| {
        it.entry("link", EntryKind::Symlink(b"dir"[..].into()));
        it.link("name", "link/file");
    };
    check(&through, "name", "no directory");
    let replaced = |it: &mut Archive| {
        it.link("name", "lower").file("lower", b"now it is here");
    };
    check(&replaced, "lower", "lower layer");
    let directory = |it: &mut Archive| {
        it.dir("dir").link("name", "dir");
    };
    check(&directory, "name", "directory");
    let itself = |it: &mut Archive| {
        it.link("name", "./name");
    };
    check(&itself, "name", "itself");
    let hidden = |it: &mut Archive| {
        it.file(".prefetch.landmark/file", b"");
    };
    check(&hidden, ".prefetch.landmark/file", "keeps for itself");
    let root = |it: &mut Archive| {
        it.file("./", b"");
    };
    check(&root, "./", "no directory");
    let made_anew = |it: &mut Archive| {
        it.file("name", b"").dir("name");
    };
    check(&made_anew, "name", "hides");
    let in_between = |it: &mut Archive| {
        it.file("name", b"")
            .file(".wh.other", b"")
            .file("name", b"");
    };
    check(&in_between, "name", "in between");
}

#[test]
fn limits_are_kept() {
    let mut archive = Archive::new();
    archive.file("name", &[0; 80_000]).file("other", b"");
    let archive = archive.finish();
    let with = |entries_max, toc_bytes_max| {
        let options = WriteOptions {
            entries_max,
            toc_bytes_max,
            ..options()
        };
        write(&archive, &options).map(drop)
    };
    with(11, 1 << 20).unwrap();
    for error in [with(10, 1 << 20).unwrap_err(), with(11, 1000).unwrap_err()] {
        assert!(matches!(error, WriteError::TooLarge { .. }), "{error}");
    }
    // More zeros than the table can name, from one header.
    let mut hostile = Vec::new();
    let entry = Entry {
        path: b"huge"[..].into(),
        meta: Meta::default(),
        kind: file(1 << 43),
    };
    Writer::new(&mut hostile).entry(&entry).unwrap();
    let error = write(&hostile, &options()).unwrap_err();
    assert!(matches!(error, WriteError::TooLarge { .. }), "{error}");
}

#[test]
fn options_out_of_range_are_refused() {
    let archive = Archive::new().finish();
    for options in [
        WriteOptions {
            chunk_bytes: 0,
            ..options()
        },
        WriteOptions {
            chunk_bytes: 4097,
            ..options()
        },
        WriteOptions {
            chunk_bytes: 32 << 20,
            ..options()
        },
        WriteOptions {
            pack_bytes: 32 << 20,
            ..options()
        },
        WriteOptions {
            level: 0,
            ..options()
        },
        WriteOptions {
            level: 13,
            ..options()
        },
    ] {
        let error = write(&archive, &options).unwrap_err();
        assert!(matches!(error, WriteError::Option { .. }), "{error}");
        assert!(!error.is_limit_of_format());
    }
}

#[test]
fn failures_of_either_end_are_told_apart() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut archive = Archive::new();
    for number in 0..100_u32 {
        archive.file(&format!("{number}"), &noise(100_000, number.into()));
    }
    let archive = archive.finish();
    let whole = write(&archive, &options()).unwrap();
    for room in [0, 1_000_000, whole.blob.len() - 100, whole.blob.len() - 1] {
        let out = Full(room);
        let outcome = draught_estargz::write(&archive[..], out, tempfile::tempfile, &options());
        let error = outcome.unwrap_err();
        let is_out = matches!(error, WriteError::Out(_) | WriteError::Entry(_));
        assert!(is_out, "{error:?}");
    }
    for end in [100, 5_000_000, archive.len() - 100_000] {
        let error = write(&archive[..end], &options()).unwrap_err();
        assert!(matches!(error, WriteError::Archive(_)), "{error:?}");
    }
    let spool = || Err::<std::fs::File, _>(std::io::ErrorKind::StorageFull.into());
    let prefetched = WriteOptions {
        prefetch: vec![b"5".to_vec()],
        ..options()
    };
    let outcome = draught_estargz::write(&archive[..], Vec::new(), spool, &prefetched);
    assert!(matches!(outcome, Err(WriteError::Spool(_))));
    // Nobody needs one without that.
    let spool = || -> std::io::Result<std::fs::File> { panic!("it is not called") };
    draught_estargz::write(&archive[..], Vec::new(), spool, &options()).unwrap();
}

#[test]
fn entries_that_are_replaced_are_not_in_the_table() {
    let mut archive = Archive::new();
    archive
        .dir("dir")
        .file("dir/file", b"first")
        .link("kept", "dir/file")
        .link("also-kept", "kept")
        .file("dir/file", b"second")
        .dir("dir")
        .dir("gone")
        .file("gone/file", b"gone")
        .file("gone", b"a file");
    let archive = archive.finish();
    for prefetch in [vec![], vec![b"/also-kept".to_vec()]] {
        let options = WriteOptions {
            prefetch,
            ..options()
        };
        let layers = check(std::slice::from_ref(&archive), &options);
        let toc = layers[0].toc();
        let names: Vec<_> = toc
            .iter()
            .map(|entry| entry["name"].as_str().unwrap())
            .collect();
        let unprefetched = [
            ".no.prefetch.landmark",
            "dir/",
            "kept",
            "also-kept",
            "dir/file",
            "gone",
        ];
        let prefetched = [
            "kept",
            "also-kept",
            ".prefetch.landmark",
            "dir/",
            "dir/file",
            "gone",
        ];
        assert!(names == unprefetched || names == prefetched, "{names:?}");
        assert_eq!(layers[0].toc_entry("kept")["type"], "reg");
        assert_eq!(layers[0].toc_entry("also-kept")["linkName"], "kept");
        let decoded = support::applied([&layers[0].decoded()]).unwrap();
        assert_eq!(decoded[&b"/kept"[..]].links, 2);
    }
}
