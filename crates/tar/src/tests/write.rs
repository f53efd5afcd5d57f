//! What is written is read back.

use proptest::prelude::*;

use super::support::*;
use crate::{Extra, Limits, Reader, TarError, WriteError, Writer};
use draught_tree::{Entry, EntryKind, Meta};

fn write(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in items {
        writer.entry(entry).unwrap();
        writer.data(content).unwrap();
    }
    let archive = writer.finish().unwrap();
    assert_eq!(archive.len() % 512, 0);
    archive
}

fn name(bytes_max: usize) -> impl Strategy<Value = Box<[u8]>> {
    prop_oneof![
        prop::collection::vec(1..=255_u8, 1..bytes_max).prop_map(Vec::into_boxed_slice),
        "[a-z]{1,40}(/[a-z]{1,40}){0,8}".prop_map(|name| name.into_bytes().into_boxed_slice()),
    ]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let number = prop_oneof![0..300_u32, any::<u32>()];
    let device = (number.clone(), number);
    prop_oneof![
        Just(EntryKind::Directory),
        Just(EntryKind::Fifo),
        (0..2000_u64).prop_map(|bytes| EntryKind::File {
            bytes,
            chunks: Box::default()
        }),
        name(300).prop_map(EntryKind::Symlink),
        name(300).prop_map(EntryKind::HardLink),
        device
            .clone()
            .prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        device.prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let id = prop_oneof![0..100_000_u32, any::<u32>()];
    let xattrs = prop::collection::btree_map("[a-z.]{1,20}", any::<Vec<u8>>(), 0..4);
    (
        0..0o10000_u16,
        id.clone(),
        id,
        prop_oneof![0..(1_i64 << 34), any::<i64>()],
        prop_oneof![Just(0), 0..1_000_000_000_u32],
        xattrs,
    )
        .prop_map(|(mode, uid, gid, mtime, mtime_nsec, xattrs)| Meta {
            mode,
            uid,
            gid,
            // The least second has no positive counterpart.
            mtime: mtime.max(i64::MIN + 2),
            mtime_nsec,
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| (name.into_bytes().into(), value.into()))
                .collect(),
        })
}

fn item() -> impl Strategy<Value = Item> {
    (name(400), meta(), kind()).prop_map(|(path, meta, kind)| {
        let mut path = path.into_vec();
        if kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let bytes = match kind {
            EntryKind::File { bytes, .. } => bytes,
            _ => 0,
        };
        let content = (0..bytes).map(|at| (at % 253) as u8).collect();
        let path = path.into();
        (Entry { path, meta, kind }, content)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(written in prop::collection::vec(item(), 0..6)) {
        let archive = write(&written);
        prop_assert_eq!(&archive, &write(&written));
        prop_assert_eq!(items(&archive, Limits::default()).unwrap(), written);
    }
}

#[test]
fn plain_entries_need_no_pax_header() {
    let long = format!("{}/{}", "d".repeat(155), "n".repeat(100));
    for path in ["x", &"n".repeat(100), &long, "n\u{e4}me"] {
        assert_eq!(
            write(&[(file(path, 0), Vec::new())]).len(),
            512 * 3,
            "{path}"
        );
    }
    let longer = format!("{}/{}", "d".repeat(156), "n".repeat(100));
    assert_eq!(write(&[(file(&longer, 0), Vec::new())]).len(), 512 * 5);
}

#[test]
fn sizes_beyond_eight_gibibytes_take_a_record() {
    for (bytes, headers) in [(8_589_934_591, 1), (8_589_934_592, 3), (1 << 43, 3)] {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&file("big", bytes)).unwrap();
        assert_eq!(writer.position(), 512 * headers);
        assert!(matches!(writer.finish(), Err(WriteError::Size { .. })));
        let mut headers = Vec::new();
        Writer::new(&mut headers)
            .entry(&file("big", bytes))
            .unwrap();
        let mut reader = Reader::new(&headers[..], Limits::default());
        assert_eq!(reader.next_entry().unwrap(), Some(file("big", bytes)));
        assert!(matches!(
            reader.next_entry(),
            Err(TarError::Truncated { .. })
        ));
    }
}

#[test]
fn the_root_is_a_dot() {
    let archive = write(&[(entry("", EntryKind::Directory), Vec::new())]);
    assert_eq!(&archive[..3], b"./\0");
}

#[test]
fn what_tar_cannot_hold_is_refused() {
    let mut nul = file("a\0b", 0);
    let mut attribute = file("x", 0);
    attribute.meta.xattrs = vec![(b"user.a=b"[..].into(), Box::default())];
    for (entry, expect) in [
        (entry("s", EntryKind::Socket), "\"s\" is a socket"),
        (file("", 0), ""),
        (nul.clone(), "NUL byte"),
        (
            entry("l", EntryKind::Symlink(Box::default())),
            "the target of \"l\" is empty",
        ),
        (attribute, "attribute \"user.a=b\""),
    ] {
        let result = Writer::new(Vec::new()).entry(&entry);
        match result {
            Ok(()) => assert_eq!(expect, ""),
            Err(error) => assert!(error.to_string().contains(expect), "{error}"),
        }
    }
    nul.path = b"ok"[..].into();
    Writer::new(Vec::new()).entry(&nul).unwrap();
}

#[test]
fn content_must_have_the_size_that_was_said() {
    let mut writer = Writer::new(Vec::new());
    writer.entry(&file("x", 3)).unwrap();
    writer.data(b"ab").unwrap();
    let error = writer.data(b"cd").unwrap_err().to_string();
    assert!(error.contains("1 bytes more, not 2"), "{error}");
    let error = writer.entry(&file("y", 0)).unwrap_err().to_string();
    assert!(error.contains("1 bytes more, not 0"), "{error}");
    writer.data(b"c").unwrap();
    writer.entry(&file("y", 0)).unwrap();
    writer.finish().unwrap();
}

#[test]
fn what_a_tree_has_no_place_for_is_passed_on() {
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let records = [
        ("SCHILY.acl.access", "user::rw-"),
        ("VENDOR.key", "a\0=\n"),
        ("atime", "5.5"),
    ];
    let records = records.map(|(keyword, value)| (bytes(keyword), bytes(value)));
    let long = "g".repeat(32);
    for (user, group) in [("root", "staff"), ("", &*long), (&*long, "")] {
        let extra = Extra {
            user: bytes(user),
            group: bytes(group),
            records: records.to_vec(),
        };
        let entry = Entry {
            path: bytes("file"),
            meta: Meta::default(),
            kind: EntryKind::Fifo,
        };
        let mut writer = Writer::new(Vec::new());
        writer.entry_with(&entry, &extra).unwrap();
        writer.entry(&entry).unwrap();
        let archive = writer.finish().unwrap();
        let mut reader = Reader::new(&archive[..], Limits::default());
        assert_eq!(reader.next_entry().unwrap(), Some(entry.clone()));
        assert_eq!(reader.extra(), &extra);
        // Nothing is left of it at the next entry.
        assert_eq!(reader.next_entry().unwrap(), Some(entry));
        assert_eq!(reader.extra(), &Extra::default());
    }
}
