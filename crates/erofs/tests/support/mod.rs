//! Trees for tests, with content that can be told from any other.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "every test binary uses a part of it"
)]

use std::path::{Path, PathBuf};

use draught_digest::Digest;
use draught_tree::{
    Blob, BlobId, BlobOffset, Chunk, ChunkId, ChunkOffset, Compression, DeviceOffset, Entry,
    EntryKind, Extent, Limits, Meta, NodeId, Tree,
};
use fs_err::os::unix::fs::FileExt as _;

/// A tree under construction, and the devices with its files' content.
pub(crate) struct Maker {
    pub(crate) tree: Tree,
    pub(crate) devices: Vec<Vec<u8>>,
    seed: u64,
}

impl Maker {
    /// A tree with that many devices.
    pub(crate) fn new(devices: usize) -> Self {
        let mut tree = Tree::new();
        tree.begin_layer();
        for device in 0..devices {
            tree.map.push_blob(Blob {
                digest: Digest::sha256(&device.to_le_bytes()),
                stored_bytes: 0,
                device_bytes: 0,
            });
        }
        Self {
            tree,
            devices: vec![Vec::new(); devices],
            seed: 1,
        }
    }

    /// Adds an entry.
    pub(crate) fn add(&mut self, path: impl AsRef<[u8]>, meta: Meta, kind: EntryKind) -> NodeId {
        let path = path.as_ref().into();
        let entry = Entry { path, meta, kind };
        let applied = self.tree.apply(entry, &Limits::default());
        applied.unwrap().unwrap()
    }

    /// Bytes that are no zeros and come only once.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.extend_from_slice(&(self.seed | 0x0101_0101_0101_0101).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Puts a chunk of that many bytes on a device, at the next free block.
    pub(crate) fn chunk(&mut self, device: usize, len: usize) -> ChunkId {
        let bytes = self.bytes(len);
        let content = &mut self.devices[device];
        let place = content.len();
        content.extend_from_slice(&bytes);
        content.resize(content.len().next_multiple_of(4096), 0);
        let end = u64::try_from(content.len()).unwrap();
        let map = &mut self.tree.map;
        map.blobs[device].device_bytes = end;
        let extent = map.push_extent(Extent {
            blob: BlobId(u32::try_from(device).unwrap()),
            offset: BlobOffset(u64::try_from(place).unwrap()),
            stored_bytes: u32::try_from(len).unwrap(),
            decoded_bytes: u32::try_from(len).unwrap(),
            compression: Compression::None,
        });
        let chunk = map.push_chunk(Chunk {
            digest: Digest::sha256(&bytes),
            extent: extent.unwrap(),
            offset: ChunkOffset(0),
            bytes: u32::try_from(len).unwrap(),
            place: DeviceOffset(u64::try_from(place).unwrap()),
        });
        chunk.unwrap()
    }

    /// Adds a file of those chunks: (device, bytes).
    pub(crate) fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        chunks: &[(usize, usize)],
    ) -> NodeId {
        let ids = chunks.iter().map(|(device, len)| self.chunk(*device, *len));
        let ids: Vec<_> = ids.collect();
        self.file_of(path, meta, &ids)
    }

    /// Adds a file of chunks that are there.
    pub(crate) fn file_of(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        ids: &[ChunkId],
    ) -> NodeId {
        let bytes = ids
            .iter()
            .map(|id| u64::from(self.tree.map.chunk(*id).unwrap().bytes));
        let kind = EntryKind::File {
            bytes: bytes.sum(),
            chunks: ids.into(),
        };
        self.add(path, meta, kind)
    }

    /// The bytes of a chunk.
    pub(crate) fn content(&self, chunk: &Chunk) -> Vec<u8> {
        let blob = self.tree.map.blob_of(chunk).unwrap();
        let start = usize::try_from(chunk.place.0).unwrap();
        let end = start + usize::try_from(chunk.bytes).unwrap();
        self.devices[blob.index()][start..end].to_vec()
    }

    /// Writes the devices as files.
    pub(crate) fn write_devices(&self, dir: &Path) -> Vec<PathBuf> {
        let write = |(at, content): (usize, &Vec<u8>)| {
            let path = dir.join(format!("device{at}"));
            let file = fs_err::File::create(&path).unwrap();
            file.write_all_at(content, 0).unwrap();
            path
        };
        self.devices.iter().enumerate().map(write).collect()
    }
}

/// Plain metadata with that mode.
pub(crate) fn meta(mode: u16) -> Meta {
    Meta {
        mode,
        uid: 1000,
        gid: 100,
        mtime: 1_700_000_000,
        mtime_nsec: 123_456_789,
        xattrs: Vec::new(),
    }
}

/// A tree with everything that the model can say.
pub(crate) fn everything(devices: usize) -> Maker {
    let mut maker = Maker::new(devices);
    let last = devices - 1;
    let m = &mut maker;
    m.add("/", meta(0o711), EntryKind::Directory);
    m.add("empty", meta(0o1777), EntryKind::Directory);
    m.add("dir", meta(0o2755), EntryKind::Directory);
    m.file("dir/small", meta(0o4755), &[(0, 5)]);
    m.file("dir/nothing", meta(0), &[]);
    for (name, bytes) in [("4095", 4095), ("4096", 4096), ("4097", 4097)] {
        m.file(format!("dir/{name}"), meta(0o644), &[(last, bytes)]);
    }
    m.file(
        "contiguous",
        meta(0o644),
        &[(0, 1 << 20), (0, 1 << 20), (0, 777)],
    );
    m.file(
        "scattered",
        meta(0o644),
        &[(0, 1 << 16), (last, 1 << 16), (0, 1 << 16), (last, 1)],
    );
    let shared = m.chunk(0, 1 << 16);
    m.file_of("repeated", meta(0o644), &[shared, shared, shared]);
    m.file_of("shares", meta(0o600), &[shared]);
    special(m);
    times(m);
    attributes(m);
    names(m);
    maker
}

fn special(m: &mut Maker) {
    m.add("fifo", meta(0o640), EntryKind::Fifo);
    m.add("socket", meta(0o755), EntryKind::Socket);
    for (name, major, minor) in [("null", 1, 3), ("big", 4095, 1_048_575), ("zero", 0, 0)] {
        m.add(name, meta(0o666), EntryKind::CharDevice { major, minor });
        m.add(
            format!("b-{name}"),
            meta(0o660),
            EntryKind::BlockDevice { major, minor },
        );
    }
    for (at, bytes) in [
        1, 59, 60, 255, 1000, 2000, 2049, 3000, 4031, 4032, 4033, 4095,
    ]
    .into_iter()
    .enumerate()
    {
        let target = vec![b'a' + u8::try_from(at).unwrap(); bytes];
        m.add(
            format!("links/{at}"),
            meta(0o777),
            EntryKind::Symlink(target.into()),
        );
    }
    m.add(
        "dir/link",
        meta(0),
        EntryKind::HardLink(b"dir/small"[..].into()),
    );
    m.add("aaa", meta(0), EntryKind::HardLink(b"dir/small"[..].into()));
    m.add("zzz/link", meta(0), EntryKind::HardLink(b"fifo"[..].into()));
    m.add(
        "zzz/symlink",
        meta(0),
        EntryKind::HardLink(b"links/0"[..].into()),
    );
}

fn times(m: &mut Maker) {
    let times = [
        ("epoch", 0, 0),
        ("before", -1, 999_999_999),
        ("ancient", -2_208_988_800, 1),
        ("2038", 1 << 31, 5),
        ("2106", 1 << 32, 0),
        ("far", 1 << 35, 999_999_999),
    ];
    for (name, mtime, mtime_nsec) in times {
        let mut meta = meta(0o644);
        (meta.mtime, meta.mtime_nsec) = (mtime, mtime_nsec);
        (meta.uid, meta.gid) = (u32::MAX - 1, 70_000);
        m.add(format!("times/{name}"), meta, EntryKind::Directory);
    }
}

/// An access control list as the kernel takes it: user 0, group 0, others, and a named user.
pub(crate) fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 7, 1234),
        (4, 4, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 4, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

fn attributes(m: &mut Maker) {
    // cap_net_raw+ep, version 2.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut with = |path: &str, kind: EntryKind, list: &[(&str, &[u8])]| {
        let mut meta = meta(0o674);
        let mut xattrs: Vec<_> = list
            .iter()
            .map(|(name, value)| (name.as_bytes().into(), (*value).into()))
            .collect();
        xattrs.sort();
        meta.xattrs = xattrs;
        m.add(path, meta, kind);
    };
    let file = || EntryKind::File {
        bytes: 0,
        chunks: Box::default(),
    };
    let acl = acl();
    with(
        "xattrs/capability",
        file(),
        &[("security.capability", &capability)],
    );
    with("xattrs/acl", file(), &[("system.posix_acl_access", &acl)]);
    with(
        "xattrs/several",
        file(),
        &[
            ("user.a", b"1"),
            ("user.b", b""),
            ("trusted.overlay.opaque", b"y"),
            ("security.selinux", b"a:b:c:s0\0"),
        ],
    );
    let long_name = format!("user.{}", "n".repeat(250));
    with(
        "xattrs/long",
        file(),
        &[(&long_name, &[7; 4000]), ("user.second", &[8; 5000])],
    );
    with(
        "xattrs/dir",
        EntryKind::Directory,
        &[
            ("system.posix_acl_default", &acl),
            ("system.posix_acl_access", &acl),
            ("user.big", &[9; 3000]),
        ],
    );
    with(
        "xattrs/dir/inside",
        EntryKind::Symlink(vec![b'x'; 900].into()),
        &[("trusted.t", &[1; 200])],
    );
    with(
        "xattrs/dir/huge",
        EntryKind::Directory,
        &[("trusted.t", &[3; 6000])],
    );
    with(
        "xattrs/dir/huge/a",
        EntryKind::Fifo,
        &[("trusted.t", &[4; 60000])],
    );
}

fn names(m: &mut Maker) {
    for byte in [b' ', b'!', b'-', b'.', b'~', 0x80, 0xff, b'\n'] {
        let mut name = b"names/x".to_vec();
        name.push(byte);
        m.add(&name, meta(0o644), EntryKind::Fifo);
        m.add(
            [b"names/", &[byte, byte, byte][..]].concat(),
            meta(0o644),
            EntryKind::Fifo,
        );
    }
    m.add("names/.-", meta(0o644), EntryKind::Fifo);
    m.add("names/-", meta(0o644), EntryKind::Fifo);
    m.add("names/...", meta(0o644), EntryKind::Fifo);
    for at in 0..40 {
        let name = format!("long/{at:03}{}", "l".repeat(252));
        m.file(name, meta(0o644), &[(0, 10)]);
    }
    for at in 0..12_000 {
        m.add(format!("many/entry-{at}"), meta(0o644), EntryKind::Fifo);
    }
    let deep = "d/".repeat(300);
    m.file(format!("{deep}file"), meta(0o644), &[(0, 1)]);
    // Directories of every size around that of a block.
    for count in 0..80 {
        for at in 0..count {
            m.add(
                format!("sizes/{count}/{}{at:02}", "s".repeat(40)),
                meta(0o644),
                EntryKind::Socket,
            );
        }
    }
}
