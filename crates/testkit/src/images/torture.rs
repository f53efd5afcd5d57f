//! An image that holds every kind of entry and every trick of layers that unpackers agree about.

use std::path::PathBuf;

use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Meta};

use super::{Layer, Packing, cached, write_layout};

/// An archive that is being written: entries get owner and time by their number, so that no two
/// are alike.
struct Archive {
    writer: Writer<Vec<u8>>,
    count: u32,
}

impl Archive {
    fn new(first: u32) -> Self {
        Self {
            writer: Writer::new(Vec::new()),
            count: first,
        }
    }

    /// Adds an entry that `change` made special.
    fn add(&mut self, path: impl AsRef<[u8]>, kind: EntryKind, change: impl FnOnce(&mut Meta)) {
        self.count += 1;
        let mut meta = Meta {
            mode: match kind {
                EntryKind::Directory => 0o755,
                EntryKind::Symlink(_) => 0o777,
                _ => 0o644,
            },
            uid: self.count,
            gid: 1000 + self.count,
            mtime: 1_600_000_000 + i64::from(self.count),
            mtime_nsec: 0,
            xattrs: Vec::new(),
        };
        change(&mut meta);
        let entry = Entry {
            path: path.as_ref().into(),
            meta,
            kind,
        };
        self.writer.entry(&entry).unwrap();
    }

    fn dir(&mut self, path: impl AsRef<[u8]>) {
        self.add(path, EntryKind::Directory, |_| {});
    }

    fn file(&mut self, path: impl AsRef<[u8]>, content: &[u8]) {
        self.file_with(path, content, |_| {});
    }

    fn file_with(
        &mut self,
        path: impl AsRef<[u8]>,
        content: &[u8],
        change: impl FnOnce(&mut Meta),
    ) {
        let kind = EntryKind::File {
            bytes: content.len() as u64,
            chunks: Box::default(),
        };
        self.add(path, kind, change);
        self.writer.data(content).unwrap();
    }

    fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        self.add(path, EntryKind::Symlink(target.as_ref().into()), |_| {});
    }

    fn link(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        self.add(path, EntryKind::HardLink(target.as_ref().into()), |_| {});
    }

    fn hide(&mut self, path: &str) {
        self.file(path, b"");
    }

    fn finish(self) -> Vec<u8> {
        self.writer.finish().unwrap()
    }
}

fn xattrs(list: &[(&str, &[u8])]) -> draught_tree::Xattrs {
    let mut xattrs: draught_tree::Xattrs = list
        .iter()
        .map(|(name, value)| (name.as_bytes().into(), (*value).into()))
        .collect();
    xattrs.sort();
    xattrs
}

/// Bytes that don't compress and don't repeat.
fn noise(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// A capability as `setcap cap_net_raw+ep` writes it.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// An access control list: owner rw-, user 1000 r--, group r--, mask rw-, others nothing.
fn access_list() -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// Kinds and sizes.
fn kinds() -> Vec<u8> {
    let mut tar = Archive::new(100);
    tar.add("./", EntryKind::Directory, |meta| meta.mode = 0o751);
    for (name, mode) in [
        ("plain", 0o755),
        ("sticky", 0o1777),
        ("setgid", 0o2750),
        ("shut", 0),
    ] {
        tar.add(format!("dirs/{name}"), EntryKind::Directory, |meta| {
            meta.mode = mode
        });
    }
    // After its children: its own entry has the last word.
    tar.add("dirs", EntryKind::Directory, |meta| meta.mode = 0o711);
    tar.dir("sizes");
    for bytes in [
        0, 1, 4095, 4096, 4097, 65_536, 1_048_575, 1_048_577, 2_500_000,
    ] {
        tar.file(format!("sizes/{bytes}"), &noise(bytes, 7));
    }
    tar.file("sizes/zeros", &vec![0; 3_000_000]);
    let mut islands = vec![0; 2_200_000];
    islands[1_500_000..1_500_005].copy_from_slice(b"data!");
    tar.file("sizes/islands", &islands);

    tar.dir("kinds");
    let device = |major, minor| EntryKind::CharDevice { major, minor };
    tar.add("kinds/null", device(1, 3), |meta| meta.mode = 0o666);
    tar.add("kinds/largest", device(4095, 1_048_575), |_| {});
    tar.add(
        "kinds/disk",
        EntryKind::BlockDevice {
            major: 8,
            minor: 17,
        },
        |_| {},
    );
    tar.add("kinds/pipe", EntryKind::Fifo, |meta| meta.mode = 0o600);
    tar.file("kinds/file", b"content");
    tar.symlink("kinds/relative", "file");
    tar.symlink("kinds/absolute", "/kinds/file");
    tar.symlink("kinds/dangling", "../no/such/../thing");
    tar.symlink("kinds/loop", "loop");
    tar.symlink("kinds/long", "t/".repeat(2000));
    for kind in ["file", "null", "pipe", "relative", "disk"] {
        tar.link(format!("kinds/link-{kind}"), format!("kinds/{kind}"));
    }
    tar.link("kinds/link-link", "./kinds/link-file");
    tar.link("kinds/link-absolute", "/kinds/file");

    attributes(&mut tar);
    tar.finish()
}

/// Modes, owners, times and extended attributes.
fn attributes(tar: &mut Archive) {
    tar.dir("meta");
    tar.file_with("meta/setuid", b"x", |meta| meta.mode = 0o4755);
    tar.file_with("meta/all-bits", b"x", |meta| meta.mode = 0o7777);
    tar.file_with("meta/no-bits", b"x", |meta| meta.mode = 0);
    tar.file_with("meta/owner-16", b"x", |meta| {
        (meta.uid, meta.gid) = (65_536, 100_000)
    });
    tar.file_with("meta/owner-32", b"x", |meta| {
        (meta.uid, meta.gid) = (4_000_000_000, 2_097_152)
    });
    for (name, mtime, nanoseconds) in [
        ("nanoseconds", 1_700_000_000, 123_456_789),
        ("epoch", 0, 0),
        ("before", -1, 0),
        ("long-before", -2_000_000_000, 500_000_000),
        ("after-2038", 5_000_000_000, 0),
        ("after-2242", 9_000_000_000, 1),
    ] {
        tar.file_with(format!("meta/{name}"), b"x", |meta| {
            (meta.mtime, meta.mtime_nsec) = (mtime, nanoseconds);
        });
    }
    for name in ["meta/capability", "meta/capability-lost"] {
        tar.file_with(name, b"x", |meta| {
            meta.xattrs = xattrs(&[("security.capability", &CAPABILITY)]);
        });
    }
    tar.file_with("meta/acl", b"x", |meta| {
        // The list's mask is what the group's bits show.
        meta.mode = 0o660;
        meta.xattrs = xattrs(&[("system.posix_acl_access", &access_list())]);
    });
    tar.file_with("meta/attributes", b"x", |meta| {
        let long = noise(2000, 3);
        meta.xattrs = xattrs(&[
            ("user.plain", b"value"),
            ("user.bytes", b"\0=\n\xff"),
            ("user.long", &long),
            ("trusted.only-root", b"1"),
            ("security.draught", b"s"),
        ]);
    });
    tar.add("meta/dir", EntryKind::Directory, |meta| {
        meta.xattrs = xattrs(&[("user.on", b"a directory"), ("trusted.t", b"t")]);
    });
    tar.add(
        "meta/symlink",
        EntryKind::Symlink(b"dir"[..].into()),
        |meta| {
            meta.xattrs = xattrs(&[("trusted.on", b"a symbolic link")]);
        },
    );
    tar.add("meta/pipe", EntryKind::Fifo, |meta| {
        meta.xattrs = xattrs(&[("trusted.on", b"a pipe")]);
    });
}

/// Names.
fn names() -> Vec<u8> {
    let mut tar = Archive::new(200);
    tar.dir("names");
    for name in [
        &b"with space"[..],
        b" leading",
        b"-dash",
        b"new\nline",
        b"back\\slash",
        b"\xff\xfe not utf-8",
        "\u{fc}ml\u{e4}ut".as_bytes(),
        b"...",
        b".hidden",
        b"wh.not",
        b"tab\t\x01\x7f",
    ] {
        tar.file([b"names/", name].concat(), name);
    }
    tar.file(format!("names/{}", "n".repeat(255)), b"longest");
    tar.file(
        [&b"names/"[..], &[0xf0; 255]].concat(),
        b"longest and not utf-8",
    );
    let mut deep = String::from("deep");
    for level in 0..60 {
        tar.dir(&deep);
        tar.file(format!("{deep}/file"), &[level]);
        deep.push_str("/a-directory-name");
    }
    tar.dir("many");
    for at in 0..1000 {
        tar.file(format!("many/file-{at}"), at.to_string().as_bytes());
    }
    // Spellings of one path, and entries that come twice: the last wins.
    tar.dir("twice");
    tar.file("./twice/file", b"first");
    tar.file("twice//file", b"second");
    tar.file("/twice/./other", b"absolute");
    tar.symlink("twice/link", "first");
    tar.symlink("twice/link", "second");
    tar.file("twice/to-dir", b"file");
    tar.dir("twice/to-dir");
    tar.file("twice/to-dir/child", b"c");
    tar.dir("twice/to-file");
    tar.file("twice/to-file/child", b"c");
    tar.file("twice/to-file", b"file");
    tar.file("twice/linked", b"before");
    tar.link("twice/kept", "twice/linked");
    tar.file("twice/linked", b"after");
    lower(&mut tar);
    tar.finish()
}

/// What later layers change.
fn lower(tar: &mut Archive) {
    for dir in [
        "old",
        "old/sub",
        "old/sub/sub",
        "opaque",
        "opaque/sub",
        "opaque/both",
        "late",
        "usr",
        "usr/lib",
    ] {
        tar.dir(dir);
        tar.file(format!("{dir}/a"), b"lower a");
        tar.file(format!("{dir}/b"), b"lower b");
    }
    tar.symlink("lib", "usr/lib");
    tar.symlink("usr/abs", "/usr/lib");
    tar.symlink("usr/up", "../../../usr/./lib");
    tar.dir("swap");
    tar.file("swap/file-dir", b"f");
    tar.dir("swap/dir-file");
    tar.file("swap/dir-file/x", b"x");
    tar.dir("swap/dir-link");
    tar.file("swap/dir-link/x", b"x");
    tar.symlink("swap/link-dir", "dir-link");
    tar.symlink("swap/link-file", "/etc/passwd");
    tar.add(
        "swap/file-pipe",
        EntryKind::CharDevice { major: 1, minor: 5 },
        |_| {},
    );
    tar.dir("links");
    for name in ["one", "two", "three", "four"] {
        tar.file(format!("links/{name}"), name.as_bytes());
        tar.link(format!("links/{name}-b"), format!("links/{name}"));
    }
}

/// Whiteouts, opaque directories, replacements, links into lower layers.
fn changes() -> Vec<u8> {
    let mut tar = Archive::new(3000);
    // One file gone, one directory gone, one that isn't there, one that this layer brings.
    tar.hide("old/.wh.a");
    tar.hide("old/sub/.wh.sub");
    tar.hide("old/.wh.never-there");
    tar.hide("never/there/.wh.either");
    tar.file("old/sub/b", b"newer b");
    tar.hide("old/sub/.wh.b");
    tar.hide("many/.wh.file-7");
    tar.hide("twice/.wh.link");
    // Opaque, in the middle of what the layer itself brings.
    tar.dir("opaque");
    tar.file("opaque/before", b"1");
    tar.dir("opaque/both");
    tar.file("opaque/both/new", b"2");
    tar.hide("opaque/.wh..wh..opq");
    tar.file("opaque/after", b"3");
    // Hidden and brought again.
    tar.hide(".wh.late");
    tar.dir("late");
    tar.file("late/new", b"4");
    // Below symbolic links.
    tar.file("lib/through-relative", b"5");
    tar.file("usr/abs/through-absolute", b"6");
    tar.file("usr/up/through-up", b"7");
    tar.hide("lib/.wh.a");
    tar.link("lib/linked", "lib/b");
    // One kind for another.
    tar.dir("swap/file-dir");
    tar.file("swap/file-dir/x", b"x");
    tar.file("swap/dir-file", b"f");
    tar.symlink("swap/dir-link", "file-dir");
    tar.dir("swap/link-dir");
    tar.file("swap/link-dir/y", b"y");
    tar.file("swap/link-file", b"no passwd");
    tar.add("swap/file-pipe", EntryKind::Fifo, |_| {});
    // Names of lower inodes: one removed, one replaced, one added, one moved.
    tar.hide("links/.wh.one");
    tar.file("links/two", b"not two any more");
    tar.link("links/three-c", "links/three");
    tar.link("links/four-c", "links/four");
    tar.hide("links/.wh.four");
    tar.hide("links/.wh.four-b");
    tar.link("kinds/file", "names/.hidden");
    // Only attributes change.
    tar.add("dirs/shut", EntryKind::Directory, |meta| meta.mode = 0o700);
    tar.add("meta/dir", EntryKind::Directory, |meta| {
        meta.xattrs = xattrs(&[("user.on", b"changed")]);
    });
    tar.file("meta/capability-lost", b"x");
    tar.finish()
}

/// A layer on top that undoes some of it.
fn undoing() -> Vec<u8> {
    let mut tar = Archive::new(4000);
    tar.file("old/a", b"back again");
    tar.hide("opaque/.wh.both");
    tar.hide("swap/.wh.file-dir");
    tar.link("links/one", "links/one-b");
    tar.dir("usr/lib");
    tar.hide("usr/lib/.wh..wh..opq");
    tar.file("usr/lib/only", b"only");
    tar.add("./", EntryKind::Directory, |meta| meta.mode = 0o755);
    tar.finish()
}

/// The layers of [`torture`], lowest first: tar archives. The third and the last but one are empty.
#[must_use]
pub fn torture_layers() -> Vec<Vec<u8>> {
    let empty = || Archive::new(0).finish();
    vec![kinds(), names(), empty(), changes(), empty(), undoing()]
}

/// An OCI layout (tag `latest`) with [`torture_layers`], some gzipped and some not.
///
/// # Panics
///
/// If the cache can't be written to.
#[must_use]
pub fn torture() -> PathBuf {
    let layers = torture_layers();
    let made = cached("torture", &layers.concat(), |dir| {
        let packings = [Packing::Gzip, Packing::Tar].into_iter().cycle();
        let layers = layers.iter().zip(packings).map(|(archive, packing)| Layer {
            archive: Box::new(&archive[..]),
            packing,
        });
        write_layout(dir, layers.collect())
    });
    made.unwrap()
}
