//! What each dialect of tar means.

use super::raw::*;
use super::support::*;
use crate::{Data, Limits, Reader, Writer};
use draught_tree::EntryKind;

#[test]
fn the_oldest_headers_have_files_directories_and_links() {
    let mut archive = Raw::v7("dir/", 0).block().to_vec();
    archive.extend(Raw::v7("dir/file", 0).with(b"content"));
    archive.extend(Raw::v7("dir/link", b'1').set(LINK, b"dir/file").block());
    archive.extend(Raw::v7("dir/soft", b'2').set(LINK, b"file").block());
    // No prefix, device numbers or names are there, whatever the bytes are.
    archive.extend(
        Raw::v7("null", b'3')
            .set(MAJOR, b"0000001\0")
            .set(PREFIX, b"p")
            .block(),
    );
    archive.extend(END);
    let items = items(&archive, Limits::default()).unwrap();
    let kinds: Vec<_> = items.iter().map(|(entry, _)| entry.kind.clone()).collect();
    assert_eq!(kinds[0], EntryKind::Directory);
    assert_eq!(items[1], (file("dir/file", 7), b"content".to_vec()));
    assert_eq!(kinds[2], EntryKind::HardLink(b"dir/file"[..].into()));
    assert_eq!(kinds[3], EntryKind::Symlink(b"file"[..].into()));
    assert_eq!(kinds[4], EntryKind::CharDevice { major: 0, minor: 0 });
    assert_eq!(&*items[4].0.path, b"null");
}

#[test]
fn every_typeflag_of_ustar_is_its_kind() {
    let device = |flag| {
        Raw::ustar("x", flag)
            .set(MAJOR, b"0000010\0")
            .set(MINOR, b"0000003\0")
            .block()
    };
    for (block, kind) in [
        (device(b'3'), EntryKind::CharDevice { major: 8, minor: 3 }),
        (device(b'4'), EntryKind::BlockDevice { major: 8, minor: 3 }),
        (device(b'5'), EntryKind::Directory),
        (device(b'6'), EntryKind::Fifo),
        (device(b'0'), file("", 0).kind),
        (device(b'7'), file("", 0).kind),
        (device(0), file("", 0).kind),
    ] {
        assert_eq!(only(&block).0.kind, kind);
    }
}

#[test]
fn prefixes_stand_before_names() {
    let long = "p".repeat(155);
    let ustar = Raw::ustar("name", b'0').set(PREFIX, long.as_bytes());
    assert_eq!(
        &*only(&ustar.block()).0.path,
        format!("{long}/name").as_bytes()
    );
    // star's are shorter, its access time follows.
    let star = Raw::ustar("name", b'0')
        .set(PREFIX, b"prefix")
        .set(476..488, b"00000000001\0")
        .set(STAR_TRAILER, b"tar\0");
    assert_eq!(&*only(&star.block()).0.path, b"prefix/name");
    // GNU tar has times there instead, and what Go wrote before 1.8 is no time.
    let gnu = Raw::gnu("name", b'0').set(PREFIX, b"14000000000\x0014000000000\0");
    assert_eq!(&*only(&gnu.block()).0.path, b"name");
    let old_go = Raw::gnu("name", b'0').set(PREFIX, b"some/prefix");
    assert_eq!(&*only(&old_go.block()).0.path, b"some/prefix/name");
}

#[test]
fn directories_links_and_pipes_have_no_data_whatever_their_size_says() {
    for flag in *b"123456" {
        let mut archive = Raw::ustar("x", flag)
            .set(LINK, b"t")
            .size(700)
            .block()
            .to_vec();
        archive.extend(Raw::ustar("next", b'0').with(b"data"));
        let items = items(&archive, Limits::default()).unwrap();
        assert_eq!(items[1], (file("next", 4), b"data".to_vec()));
    }
}

#[test]
fn a_trailing_slash_makes_a_directory_of_an_old_file_only() {
    assert_eq!(
        only(&Raw::ustar("a/", 0).block()).0.kind,
        EntryKind::Directory
    );
    assert_eq!(
        only(&Raw::ustar("a/", b'0').block()).0.kind,
        file("", 0).kind
    );
}

#[test]
fn gnu_long_names_replace_the_short_ones() {
    let long = "l".repeat(3000);
    let mut archive = Raw::gnu("././@LongLink", b'K').with(format!("{long}t\0").as_bytes());
    archive.extend(Raw::gnu("././@LongLink", b'L').with(format!("{long}\0").as_bytes()));
    archive.extend(Raw::gnu("short", b'2').set(LINK, b"short").block());
    archive.extend(Raw::gnu("after", b'0').block());
    let items = items(&archive, Limits::default()).unwrap();
    assert_eq!(&*items[0].0.path, long.as_bytes());
    let target = format!("{long}t").into_bytes().into_boxed_slice();
    assert_eq!(items[0].0.kind, EntryKind::Symlink(target));
    assert_eq!(&*items[1].0.path, b"after");
}

#[test]
fn numbers_in_base_256_are_read_everywhere() {
    let raw = Raw::gnu("x", b'3')
        .set(UID, b"\x80\0\0\0\x12\x34\x56\x78")
        .set(MTIME, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe")
        .set(MINOR, b"\x80\0\0\0\x00\x20\0\0");
    let (entry, _) = only(&raw.block());
    assert_eq!((entry.meta.uid, entry.meta.mtime), (0x1234_5678, -2));
    let minor = 0x0020_0000;
    assert_eq!(entry.kind, EntryKind::CharDevice { major: 0, minor });
}

#[test]
fn modes_lose_their_file_type() {
    let (entry, _) = only(&Raw::v7("x", b'0').set(MODE, b"0104755\0").block());
    assert_eq!(entry.meta.mode, 0o4755);
}

#[test]
fn pax_records_replace_what_the_header_says() {
    let mut archive = pax(
        b'x',
        &[
            ("atime", b"1.5"),
            ("comment", b"with = and \n in it"),
            ("ctime", b"nonsense that nobody reads"),
            ("gid", b"4294967295"),
            ("linkpath", b"/t"),
            ("mtime", b"-1.25"),
            ("path", "p\u{e4}th/\u{fffd}".as_bytes()),
            ("uid", b"3000000"),
            ("uname", b"nobody"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n="),
            ("SCHILY.xattr.user.empty", b""),
        ],
    );
    archive.extend(Raw::ustar("short", b'2').set(LINK, b"s").block());
    archive.extend(Raw::ustar("after", b'0').set(UID, b"0000007\0").block());
    let items = items(&archive, Limits::default()).unwrap();
    let entry = &items[0].0;
    assert_eq!(&*entry.path, "p\u{e4}th/\u{fffd}".as_bytes());
    assert_eq!(entry.kind, EntryKind::Symlink(b"/t"[..].into()));
    assert_eq!((entry.meta.uid, entry.meta.gid), (3_000_000, u32::MAX));
    assert_eq!((entry.meta.mtime, entry.meta.mtime_nsec), (-2, 750_000_000));
    let xattrs: draught_tree::Xattrs = vec![
        (
            b"security.capability"[..].into(),
            b"\x01\0\0\x02\n="[..].into(),
        ),
        (b"user.empty"[..].into(), Box::default()),
    ];
    assert_eq!(entry.meta.xattrs, xattrs);
    let after = &items[1].0;
    assert_eq!((&*after.path, after.meta.uid), (&b"after"[..], 7));
    assert!(after.meta.xattrs.is_empty());
}

#[test]
fn libarchive_s_attributes_count_where_star_s_are_missing() {
    let mut archive = pax(
        b'x',
        &[
            ("LIBARCHIVE.xattr.user.a%3db", b"AAEC"),
            ("LIBARCHIVE.xattr.user.both", b"AAEC"),
            ("LIBARCHIVE.xattr.user.pad", b"AA=="),
            ("SCHILY.xattr.user.both", b"star"),
        ],
    );
    archive.extend(Raw::ustar("x", b'0').block());
    let xattrs: draught_tree::Xattrs = vec![
        (b"user.a=b"[..].into(), b"\0\x01\x02"[..].into()),
        (b"user.both"[..].into(), b"star"[..].into()),
        (b"user.pad"[..].into(), b"\0"[..].into()),
    ];
    assert_eq!(only(&archive).0.meta.xattrs, xattrs);
}

#[test]
fn the_last_of_two_records_counts_and_an_empty_one_takes_back() {
    let mut archive = pax(
        b'x',
        &[("path", b"a"), ("path", b"b"), ("uid", b"5"), ("uid", b"")],
    );
    archive.extend(Raw::ustar("short", b'0').set(UID, b"0000007\0").block());
    let (entry, _) = only(&archive);
    assert_eq!((&*entry.path, entry.meta.uid), (&b"b"[..], 7));
}

#[test]
fn global_records_stay_in_force_until_replaced() {
    let mut archive = pax(
        b'g',
        &[("comment", b"git"), ("uid", b"5"), ("mtime", b"9.5")],
    );
    archive.extend(Raw::ustar("a", b'0').block());
    archive.extend(pax(b'x', &[("uid", b"6"), ("mtime", b"")]));
    archive.extend(Raw::ustar("b", b'0').block());
    archive.extend(pax(b'g', &[("uid", b"")]));
    archive.extend(Raw::ustar("c", b'0').block());
    // One at the very end has nothing to speak of, and need not have.
    archive.extend(pax(b'g', &[("uid", b"1")]));
    archive.extend(END);
    let items = items(&archive, Limits::default()).unwrap();
    let seen = |at: usize| {
        let meta = &items[at].0.meta;
        (meta.uid, meta.mtime, meta.mtime_nsec)
    };
    assert_eq!(seen(0), (5, 9, 500_000_000));
    assert_eq!(seen(1), (6, 0, 0));
    assert_eq!(seen(2), (0, 9, 500_000_000));
}

#[test]
fn star_s_device_numbers_replace_the_short_ones() {
    let mut archive = pax(
        b'x',
        &[
            ("SCHILY.devmajor", b"300"),
            ("SCHILY.devminor", b"16777215"),
        ],
    );
    archive.extend(Raw::ustar("d", b'4').set(MAJOR, b"0000001\0").block());
    let (major, minor) = (300, 16_777_215);
    assert_eq!(
        only(&archive).0.kind,
        EntryKind::BlockDevice { major, minor }
    );
}

#[test]
fn an_extended_header_s_size_does_not_depend_on_records() {
    // The size record is the file's, not that of the long name in between.
    let mut archive = pax(b'x', &[("size", b"5")]);
    archive.extend(Raw::gnu("././@LongLink", b'L').with(b"long\0"));
    archive.extend(Raw::ustar("x", b'0').size(0).block());
    archive.extend(padded(b"hello"));
    archive.extend(Raw::ustar("after", b'0').block());
    let items = items(&archive, Limits::default()).unwrap();
    assert_eq!(items[0], (file("long", 5), b"hello".to_vec()));
    assert_eq!(&*items[1].0.path, b"after");
}

#[test]
fn checksums_of_signed_bytes_are_right_too() {
    let raw = Raw::ustar("n\u{e4}me", b'0');
    assert_ne!(raw.block(), raw.signed_block());
    assert_eq!(only(&raw.block()), only(&raw.signed_block()));
}

#[test]
fn names_need_not_be_utf_8() {
    let (entry, _) = only(&Raw::ustar("", b'0').set(0..100, b"\xff\xfe/\x80").block());
    assert_eq!(&*entry.path, b"\xff\xfe/\x80");
    let mut archive = pax(b'x', &[("path", b"\xff\xfe/\x80")]);
    archive.extend(Raw::ustar("x", b'0').block());
    assert_eq!(&*only(&archive).0.path, b"\xff\xfe/\x80");
}

/// What all sparse archives below hold: 2 bytes at 1000, 3 at 5000, holes up to 6000.
fn sparse_content() -> Vec<u8> {
    let mut content = vec![0; 6000];
    content[1000..1002].copy_from_slice(b"ab");
    content[5000..5003].copy_from_slice(b"cde");
    content
}

#[test]
fn sparse_files_of_all_versions_are_expanded() {
    let old = Raw::gnu("s", b'S')
        .piece(0, 1000, 2)
        .piece(1, 5000, 3)
        .piece(2, 6000, 0)
        .set(GNU_REAL, b"00000013560\0");
    let sparse_0_0 = pax(
        b'x',
        &[
            ("GNU.sparse.size", b"6000"),
            ("GNU.sparse.numblocks", b"3"),
            ("GNU.sparse.offset", b"1000"),
            ("GNU.sparse.numbytes", b"2"),
            ("GNU.sparse.offset", b"5000"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"6000"),
            ("GNU.sparse.numbytes", b"0"),
        ],
    );
    let sparse_0_1 = pax(
        b'x',
        &[
            ("GNU.sparse.size", b"6000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"1000,2,5000,3"),
            ("GNU.sparse.name", b"s"),
        ],
    );
    let sparse_1_0 = pax(
        b'x',
        &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"6000"),
        ],
    );
    let map = padded(b"3\n1000\n2\n5000\n3\n6000\n0\n");
    for archive in [
        old.with(b"abcde"),
        [sparse_0_0, Raw::ustar("s", b'0').with(b"abcde")].concat(),
        [sparse_0_1, Raw::ustar("x", b'0').with(b"abcde")].concat(),
        [
            sparse_1_0,
            Raw::ustar("x", b'0').with(&[&map[..], b"abcde"].concat()),
        ]
        .concat(),
    ] {
        let after = Raw::ustar("after", b'0').with(b"more");
        let items = items(&[archive, after].concat(), Limits::default()).unwrap();
        assert_eq!(items[0], (file("s", 6000), sparse_content()));
        assert_eq!(items[1], (file("after", 4), b"more".to_vec()));
    }
}

#[test]
fn old_sparse_maps_go_on_in_more_blocks() {
    let pieces: Vec<(usize, usize)> = (0..40).map(|at| (at * 1000, 1)).collect();
    let mut raw = Raw::gnu("s", b'S').set(GNU_REAL, b"00000116100\0");
    for (slot, (offset, bytes)) in pieces[..4].iter().enumerate() {
        raw = raw.piece(slot, *offset, *bytes);
    }
    raw = raw.set(GNU_EXTENDED..GNU_EXTENDED + 1, b"\x01").size(40);
    let mut archive = raw.block().to_vec();
    for (at, more) in pieces[4..].chunks(21).enumerate() {
        let mut block: Vec<u8> = more
            .iter()
            .flat_map(|(offset, bytes)| format!("{offset:011o}\0{bytes:011o}\0").into_bytes())
            .collect();
        block.resize(504, 0);
        block.push(u8::from(at == 0));
        block.resize(512, 0);
        archive.extend(block);
    }
    archive.extend(padded(&[b'x'; 40]));
    let (entry, content) = only(&archive);
    assert_eq!(entry.kind, file("s", 40_000).kind);
    assert_eq!(content.iter().filter(|byte| **byte == b'x').count(), 40);
    assert!(pieces.iter().all(|(offset, _)| content[*offset] == b'x'));
}

#[test]
fn holes_can_be_told_from_zeros() {
    let archive = Raw::gnu("s", b'S')
        .piece(0, 1000, 2)
        .set(GNU_REAL, b"00000013560\0")
        .with(b"ab");
    let mut reader = Reader::new(&archive[..], Limits::default());
    reader.next_entry().unwrap().unwrap();
    assert_eq!(reader.next_data(700).unwrap(), Data::Hole(700));
    assert_eq!(reader.next_data(700).unwrap(), Data::Hole(300));
    assert_eq!(reader.next_data(700).unwrap(), Data::Bytes(b"ab"));
    assert_eq!(reader.next_data(9999).unwrap(), Data::Hole(4998));
    assert_eq!(reader.next_data(1).unwrap(), Data::End);
}

#[test]
fn an_archive_ends_at_two_zero_blocks_or_at_the_stream_s_end() {
    let one = Raw::ustar("x", b'0').with(b"data");
    let bare = [&Raw::ustar("x", b'0').size(4).block()[..], b"data"].concat();
    for archive in [
        one.clone(),
        bare,
        [&one[..], &[0; 512]].concat(),
        [&one[..], &[0; 1024]].concat(),
        [&one[..], &[0; 10240]].concat(),
        [&one[..], &[0; 1024], b"what follows is nobody's business"].concat(),
        [&one[..], &[0; 1024], &one[..]].concat(),
    ] {
        assert_eq!(only(&archive), (file("x", 4), b"data".to_vec()));
    }
    assert_eq!(items(b"", Limits::default()).unwrap(), []);
    assert_eq!(items(&[0; 512], Limits::default()).unwrap(), []);
}

#[test]
fn finish_reads_the_stream_to_its_end() {
    let archive = [
        &Raw::ustar("x", b'0').with(b"data")[..],
        &END,
        &[7; 300_000],
    ]
    .concat();
    for entries in 0..3 {
        let mut reader = Reader::new(&archive[..], Limits::default());
        for _ in 0..entries {
            reader.next_entry().unwrap();
        }
        assert_eq!(reader.finish().unwrap(), b"");
    }
}

#[test]
fn how_the_stream_is_cut_up_and_how_much_is_asked_for_changes_nothing() {
    let mut writer = Writer::new(Vec::new());
    let content: Vec<u8> = (0..700_001_u32).map(|at| (at % 251) as u8).collect();
    for bytes in [0, 1, 511, 512, 513, 131_072, 700_001] {
        writer
            .entry(&file(&format!("f{bytes}"), bytes as u64))
            .unwrap();
        writer.data(&content[..bytes]).unwrap();
    }
    let archive = writer.finish().unwrap();
    for buffer_bytes in [1, 7, 4096, 131_072, 1 << 20] {
        let left = &archive[..];
        let mut reader = Reader::new(Dribble { left, step: 3 }, Limits::default());
        let mut whole = Reader::new(left, Limits::default());
        let mut buffer = vec![0; buffer_bytes];
        let mut seen = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            assert_eq!(whole.next_entry().unwrap().as_ref(), Some(&entry));
            assert_eq!(whole.position() % 512, 0);
            // Every other file is left for next_entry to skip.
            seen += 1;
            if seen % 2 == 0 {
                continue;
            }
            let mut at = 0;
            loop {
                let bytes = reader.read_data(&mut buffer).unwrap();
                if bytes == 0 {
                    break;
                }
                assert_eq!(buffer[..bytes], content[at..at + bytes]);
                at += bytes;
            }
            let EntryKind::File { bytes, .. } = entry.kind else {
                panic!("{entry:?}");
            };
            assert_eq!(at as u64, bytes);
            let mut at = 0;
            while let Data::Bytes(data) = whole.next_data(buffer_bytes).unwrap() {
                assert_eq!(data, &content[at..at + data.len()]);
                at += data.len();
            }
            assert_eq!(at as u64, bytes);
        }
    }
}

#[test]
fn content_can_be_read_as_a_stream() {
    let archive = Raw::ustar("x", b'0').with(b"data");
    let mut reader = Reader::new(&archive[..], Limits::default());
    reader.next_entry().unwrap();
    assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "data");
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.next_entry().unwrap(), None);
}
