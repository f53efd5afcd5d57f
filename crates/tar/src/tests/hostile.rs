//! Archives that nobody should be able to do harm with.

use proptest::prelude::*;

use super::raw::*;
use std::io::Read;

use super::support::*;
use crate::{Limits, Reader, TarError, Writer};
use draught_tree::EntryKind;

/// A size in octal.
fn octal(bytes: u64) -> String {
    format!("{bytes:011o}\0")
}

fn sparse(records: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    [pax(b'x', records), Raw::ustar("s", b'0').with(data)].concat()
}

/// Every bad archive and what its error says; one is good, to show that the table can tell.
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_archives() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = Raw::ustar("x", b'0').with(b"data");
    let long_path = vec![b'p'; 4097];
    let piece = |offset, bytes| {
        Raw::gnu("s", b'S')
            .piece(0, 0, 2)
            .piece(1, offset, bytes)
            .set(GNU_REAL, b"00000013560\0")
            .with(b"abcd")
    };
    let v1_0: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"6000"),
    ];
    let hole = [
        ("GNU.sparse.map", &b"0,1"[..]),
        ("GNU.sparse.size", b"99999999999"),
    ];
    let mut endless = Raw::gnu("s", b'S')
        .set(GNU_EXTENDED..GNU_EXTENDED + 1, b"\x01")
        .block()
        .to_vec();
    endless.resize(512 * 3, 0);
    endless[512 + 504] = 1;
    endless[1024 + 504] = 1;
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("text", vec![b'x'; 600], "no tar header at byte 0"),
        (
            "half a header",
            good[..100].to_vec(),
            "ends at byte 100, in the middle of a header",
        ),
        (
            "half its data",
            good[..514].to_vec(),
            "ends at byte 514, in the middle of a file's data",
        ),
        (
            "wrong checksum",
            [&good[..], &[1; 512]].concat(),
            "no tar header at byte 1024",
        ),
        (
            "lone zero block",
            [&good[..], &[0; 512], &good[..]].concat(),
            "zeros at byte 1024 is not followed",
        ),
        (
            "size is text",
            Raw::ustar("x", b'0').set(SIZE, b"zz").block().to_vec(),
            "size is \"zz",
        ),
        (
            "size is negative",
            Raw::gnu("x", b'0').set(SIZE, &[0xff; 12]).block().to_vec(),
            "size is",
        ),
        (
            "size is beyond all",
            Raw::gnu("x", b'0')
                .set(SIZE, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")
                .block()
                .to_vec(),
            "the size of a file is 9223372036854775807",
        ),
        (
            "mode is text",
            Raw::ustar("x", b'0').set(MODE, b"rwx").block().to_vec(),
            "mode is \"rwx",
        ),
        (
            "owner is negative",
            Raw::gnu("x", b'0').set(UID, &[0xff; 8]).block().to_vec(),
            "uid is",
        ),
        (
            "owner has 33 bits",
            [pax(b'x', &[("uid", b"4294967296")]), good.clone()].concat(),
            "uid is \"4294967296\"",
        ),
        (
            "time is text",
            [pax(b'x', &[("mtime", b"now")]), good.clone()].concat(),
            "mtime is \"now\"",
        ),
        (
            "unknown type",
            Raw::ustar("x", b'V').block().to_vec(),
            "\"x\" at byte 0 has the unknown type 'V'",
        ),
        (
            "solaris",
            Raw::ustar("x", b'X').block().to_vec(),
            "unknown type 'X'",
        ),
        (
            "symlink to nowhere",
            Raw::ustar("x", b'2').block().to_vec(),
            "\"x\" at byte 0 has no target",
        ),
        (
            "device that is none",
            Raw::ustar("x", b'3').set(MAJOR, b"abc").block().to_vec(),
            "devmajor is \"abc",
        ),
        (
            "dangling records",
            pax(b'x', &[("uid", b"1")]),
            "after an extended header without its entry",
        ),
        (
            "dangling name",
            [&Raw::gnu("l", b'L').with(b"n")[..], &END].concat(),
            "after an extended header without its entry",
        ),
        (
            "forged size of records",
            Raw::ustar("x", b'x')
                .set(SIZE, octal(7 << 30).as_bytes())
                .block()
                .to_vec(),
            "the size of an extended header is 7516192768, the limit is 1048576",
        ),
        (
            "forged size of a name",
            Raw::gnu("x", b'L')
                .set(SIZE, octal(1 << 21).as_bytes())
                .block()
                .to_vec(),
            "the limit is 1048576",
        ),
        (
            "records cut off",
            Raw::ustar("x", b'x').size(1000).block().to_vec(),
            "in the middle of an extended header",
        ),
        (
            "records without syntax",
            [Raw::ustar("x", b'x').with(b"12 path=abc"), good.clone()].concat(),
            "a record is not",
        ),
        (
            "record longer than its header",
            [Raw::ustar("x", b'x').with(b"99 path=abc\n"), good.clone()].concat(),
            "a record is not",
        ),
        (
            "endless path",
            [pax(b'x', &[("path", &long_path)]), good.clone()].concat(),
            "the length of the path is 4097, the limit is 4096",
        ),
        (
            "endless target",
            [pax(b'x', &[("linkpath", &long_path)]), good.clone()].concat(),
            "the length of the link's target is 4097",
        ),
        (
            "endless GNU name",
            [Raw::gnu("x", b'L').with(&long_path), good.clone()].concat(),
            "the length of a long name is 4097",
        ),
        (
            "path with NUL",
            [pax(b'x', &[("path", b"a\0b")]), good.clone()].concat(),
            "NUL byte",
        ),
        (
            "huge attribute",
            [
                pax(b'x', &[("SCHILY.xattr.user.x", &vec![0; 140_000])]),
                good.clone(),
            ]
            .concat(),
            "the size of the extended attributes is 140006, the limit is 131072",
        ),
        (
            "many attributes",
            [
                pax(b'x', &vec![("SCHILY.xattr.user.x", &[0; 1000][..]); 9][..]),
                good.clone(),
            ]
            .concat(),
            "",
        ),
        (
            "nameless attribute",
            [pax(b'x', &[("SCHILY.xattr.", b"v")]), good.clone()].concat(),
            "attribute's name",
        ),
        (
            "attribute in wrong base64",
            [
                pax(b'x', &[("LIBARCHIVE.xattr.user.x", b"*")]),
                good.clone(),
            ]
            .concat(),
            "not in base64",
        ),
        (
            "global path",
            [pax(b'g', &[("path", b"p")]), good.clone()].concat(),
            "all files one path",
        ),
        (
            "global size",
            [pax(b'g', &[("size", b"1")]), good.clone()].concat(),
            "all files one path",
        ),
        (
            "global map",
            [pax(b'g', &[("GNU.sparse.map", b"0,1")]), good.clone()].concat(),
            "all files one path",
        ),
        ("pieces overlap", piece(1, 2), "overlap or are not in order"),
        (
            "piece beyond the end",
            piece(5999, 2),
            "beyond the file's end",
        ),
        (
            "piece beyond all",
            piece(0o77_777_777_777, 2),
            "beyond the file's end",
        ),
        ("pieces store less", piece(10, 1), "don't add up"),
        ("pieces store more", piece(10, 3), "don't add up"),
        (
            "map without end",
            endless.clone(),
            "in the middle of a sparse file's map",
        ),
        (
            "old map elsewhere",
            Raw::ustar("s", b'S').block().to_vec(),
            "that GNU tar did not write",
        ),
        (
            "half a piece",
            sparse(&[("GNU.sparse.map", b"0"), ("GNU.sparse.size", b"1")], b""),
            "middle of a piece",
        ),
        (
            "gap in the map",
            sparse(&[("GNU.sparse.map", b"0,,1")], b""),
            "has a gap",
        ),
        (
            "offsets alone",
            sparse(
                &[("GNU.sparse.offset", b"0"), ("GNU.sparse.offset", b"0")],
                b"",
            ),
            "take turns",
        ),
        (
            "sizes first",
            sparse(&[("GNU.sparse.numbytes", b"0")], b""),
            "take turns",
        ),
        (
            "map without size",
            sparse(&[("GNU.sparse.map", b"0,1")], b"x"),
            "its size with holes is not said",
        ),
        (
            "too few pieces",
            sparse(
                &[
                    ("GNU.sparse.map", b"0,1"),
                    ("GNU.sparse.size", b"9"),
                    ("GNU.sparse.numblocks", b"2"),
                ],
                b"x",
            ),
            "not as many pieces",
        ),
        (
            "version from the future",
            sparse(
                &[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")],
                b"",
            ),
            "other than 0.0, 0.1 and 1.0",
        ),
        (
            "map is no number",
            sparse(v1_0, &padded(b"1\nx\n0\n")),
            "a line that is no number",
        ),
        (
            "map has no end",
            sparse(v1_0, &[b'1'; 512]),
            "a line that is no number",
        ),
        (
            "map longer than data",
            sparse(v1_0, &padded(b"9\n0\n1\n")),
            "no number",
        ),
        (
            "map without data",
            sparse(v1_0, b""),
            "longer than what is stored",
        ),
        (
            "map of a billion pieces",
            sparse(v1_0, &padded(b"1000000000\n")),
            "the number of pieces is 1000000000",
        ),
        (
            "hole of a hundred gigabytes",
            sparse(&hole, b"x"),
            "the size of all holes in the archive",
        ),
    ];
    table
}

#[test]
fn bad_archives_end_in_a_clear_error() {
    for (name, archive, expect) in bad_archives() {
        match items(&archive, Limits::default()) {
            Ok(_) => assert_eq!(expect, "", "{name} was accepted"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !expect.is_empty() && error.contains(expect),
                    "{name}: {error}"
                );
            }
        }
    }
}

#[test]
fn after_an_error_only_errors_follow() {
    for (name, archive, expect) in bad_archives() {
        let mut reader = Reader::new(&archive[..], Limits::default());
        while !expect.is_empty() {
            if reader.next_entry().is_err() {
                assert!(
                    matches!(reader.next_entry(), Err(TarError::AfterError)),
                    "{name}"
                );
                assert!(matches!(
                    reader.read_data(&mut [0; 9]),
                    Err(TarError::AfterError)
                ));
                assert!(matches!(reader.next_data(9), Err(TarError::AfterError)));
                break;
            }
        }
    }
}

#[test]
fn limits_of_the_caller_hold() {
    let limits = Limits {
        extended_bytes_max: 2000,
        name_bytes_max: 10,
        xattr_bytes_max: 20,
        sparse_pieces_max: 2,
        file_bytes_max: 1000,
        hole_bytes_max: 100,
    };
    let x = Raw::ustar("x", b'0').block().to_vec();
    let real = |size: &'static [u8]| ("GNU.sparse.size", size);
    for (archive, expect) in [
        (
            [pax(b'x', &[("comment", &[b'c'; 2000])]), x.clone()].concat(),
            "an extended header is",
        ),
        (
            [pax(b'x', &[("path", &[b'p'; 11])]), x.clone()].concat(),
            "the path is 11",
        ),
        (
            [pax(b'x', &[("SCHILY.xattr.u", &[0; 20])]), x.clone()].concat(),
            "attributes is 21",
        ),
        (
            sparse(&[("GNU.sparse.map", b"0,1,2,0,3,0"), real(b"9")], b"x"),
            "pieces is 3",
        ),
        (
            Raw::ustar("x", b'0').with(&[0; 1001]),
            "size of a file is 1001",
        ),
        (
            sparse(&[("GNU.sparse.map", b"0,1"), real(b"1001")], b"x"),
            "size of a file is 1001",
        ),
        (
            [
                sparse(&[("GNU.sparse.map", b"0,1"), real(b"101")], b"x"),
                sparse(&[("GNU.sparse.map", b"0,1"), real(b"2")], b"x"),
            ]
            .concat(),
            "holes in the archive is 101",
        ),
    ] {
        let error = items(&archive, limits).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

#[test]
fn errors_of_the_source_are_not_the_archive_s() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let mut reader = Reader::new(Broken, Limits::default());
    assert!(matches!(
        reader.next_entry(),
        Err(TarError::Io { offset: 0, .. })
    ));
}

/// An archive with everything in it.
fn everything() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let long = "long/".repeat(60);
    for kind in [
        EntryKind::Directory,
        EntryKind::Symlink(long.as_bytes().into()),
        EntryKind::HardLink(b"t"[..].into()),
        EntryKind::CharDevice { major: 1, minor: 3 },
        EntryKind::Fifo,
    ] {
        let mut entry = entry(&long, kind);
        entry.meta.mtime = -5;
        entry.meta.xattrs = vec![(b"user.x"[..].into(), b"value"[..].into())];
        writer.entry(&entry).unwrap();
    }
    writer.entry(&file("file", 700)).unwrap();
    writer.data(&[b'd'; 700]).unwrap();
    let mut archive = writer.finish().unwrap();
    archive.truncate(archive.len() - 1024);
    archive.extend(Raw::gnu("l", b'L').with(b"a long name\0"));
    archive.extend(
        Raw::gnu("s", b'S')
            .piece(0, 1000, 2)
            .set(GNU_REAL, b"00000013560\0")
            .with(b"ab"),
    );
    archive.extend(pax(b'g', &[("uid", b"7")]));
    archive.extend(sparse(
        &[
            ("GNU.sparse.map", b"1000,2,5000,3"),
            ("GNU.sparse.size", b"6000"),
        ],
        b"abcde",
    ));
    let v1_0: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"6000"),
    ];
    archive.extend(sparse(
        v1_0,
        &[&padded(b"1\n1000\n2\n")[..], b"ab"].concat(),
    ));
    archive.extend(END);
    archive
}

/// Makes the checksums of all blocks that look like headers right again.
fn reseal(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Small enough that a test can read all that a reader lets through.
const SMALL: Limits = Limits {
    extended_bytes_max: 1 << 16,
    name_bytes_max: 4096,
    xattr_bytes_max: 1 << 16,
    sparse_pieces_max: 1000,
    file_bytes_max: 1 << 24,
    hole_bytes_max: 1 << 20,
};

/// Reads all and checks what no archive may break.
fn survive(archive: &[u8]) {
    let mut content_bytes = 0;
    let mut reader = Reader::new(archive, SMALL);
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.path.len() <= SMALL.name_bytes_max.max(256));
        let EntryKind::File { bytes, .. } = entry.kind else {
            continue;
        };
        let mut buffer = [0; 4096];
        let mut read = 0;
        while let Ok(more @ 1..) = reader.read_data(&mut buffer) {
            read += more as u64;
        }
        assert!(read <= bytes);
        content_bytes += read;
    }
    assert!(content_bytes <= archive.len() as u64 + SMALL.hole_bytes_max);
}

#[test]
fn everything_is_readable() {
    assert_eq!(items(&everything(), SMALL).unwrap().len(), 9);
}

#[test]
fn every_truncation_is_an_error_or_ends_between_entries() {
    let archive = everything();
    let whole = items(&archive, SMALL).unwrap();
    for length in 0..archive.len() {
        survive(&archive[..length]);
        if let Ok(items) = items(&archive[..length], SMALL) {
            assert_eq!(items, whole[..items.len()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutations_neither_panic_nor_swell(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        sealed in prop::bool::weighted(0.9),
        cuts in prop::bool::weighted(0.1),
    ) {
        let mut archive = everything();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        if sealed {
            reseal(&mut archive);
        }
        if cuts {
            archive.truncate(cut.index(archive.len()));
        }
        survive(&archive);
    }

    #[test]
    fn digits_and_separators_in_headers_neither_panic_nor_swell(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(&b"0179 =\n,./\0\x80\xffxSgLK"[..])),
            1..20,
        ),
    ) {
        let mut archive = everything();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        reseal(&mut archive);
        survive(&archive);
    }

    #[test]
    fn noise_neither_panics_nor_swells(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
        survive(&noise);
    }
}
