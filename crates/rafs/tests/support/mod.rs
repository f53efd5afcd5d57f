//! Directories to pack, and blobs to read chunks from.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "every test binary uses a part of it"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use draught_codec::Decoder;
use draught_rafs::bootstrap::{Bootstrap, Limits, Reader};
use draught_testkit::{facts, process};
use draught_tree::{Chunk, ChunkMap, ExtentId};

/// Bytes that compress by about a half and come only once.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        bytes.extend_from_slice(&(state >> 24).to_le_bytes());
        bytes.extend_from_slice(b"draught!");
    }
    bytes.truncate(len);
    bytes
}

/// A directory with everything that nydus can pack.
pub(crate) fn everything(root: &Path) {
    let path = |name: &str| root.join(name);
    for name in ["dir/sub", "empty", "many", "long"] {
        fs_err::create_dir_all(path(name)).unwrap();
    }
    fs_err::set_permissions(path("empty"), PermissionsExt::from_mode(0o1777)).unwrap();
    for (seed, bytes_len) in [
        0,
        1,
        4095,
        4096,
        4097,
        65_536,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        3_333_333,
    ]
    .into_iter()
    .enumerate()
    {
        let name = path(&format!("dir/file-{bytes_len}"));
        let seed = u64::try_from(seed).unwrap();
        fs_err::write(&name, bytes(seed, bytes_len)).unwrap();
        fs_err::set_permissions(&name, PermissionsExt::from_mode(0o4711)).unwrap();
    }
    fs_err::write(path("same"), bytes(9, 3_333_333)).unwrap();
    fs_err::write(path("zeros"), vec![0; 2 << 20]).unwrap();
    fs_err::hard_link(path("same"), path("dir/hard")).unwrap();
    symlink("dir/sub", path("link")).unwrap();
    symlink("x".repeat(3000), path("long/link")).unwrap();
    symlink("y".repeat(4000), path("long/link2")).unwrap();
    for at in 0..600 {
        fs_err::write(path(&format!("many/file-{at}")), bytes(1000 + at, 100)).unwrap();
    }
    for at in 0..40 {
        fs_err::write(path(&format!("long/{at:02}{}", "n".repeat(253))), b"").unwrap();
    }
    for (name, kind) in [("null", "c 1 3"), ("block", "b 7 300"), ("pipe", "p")] {
        let mut command = Command::new("mknod");
        process::run(command.arg(path(name)).args(kind.split(' ')));
    }
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    facts::set_xattr(&path("dir/file-1"), "security.capability", &capability);
    facts::set_xattr(&path("dir/file-4096"), "user.draught", b"cold");
    facts::set_xattr(&path("dir"), "trusted.overlay.opaque", b"y");
    facts::set_xattr(&path("dir/sub"), "user.long", &[b'v'; 2000]);
    std::os::unix::fs::chown(path("dir/file-4097"), Some(70_000), Some(12)).unwrap();
    let mut touch = Command::new("touch");
    process::run(
        touch
            .args(["-h", "-d", "2001-02-03 04:05:06.789"])
            .arg(path("link")),
    );
}

/// Blobs in a directory, named by their digests.
pub(crate) struct Blobs {
    dir: PathBuf,
    /// The last extent, decoded.
    last: RefCell<Option<(ExtentId, Vec<u8>)>>,
    decoder: RefCell<Decoder>,
}

impl Blobs {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            last: RefCell::default(),
            decoder: RefCell::default(),
        }
    }

    /// A range of a blob.
    pub(crate) fn read(&self, blob: &str, offset: u64, len: usize) -> Vec<u8> {
        let mut stored = vec![0; len];
        let file = fs_err::File::open(self.dir.join(blob)).unwrap();
        file.into_file().read_exact_at(&mut stored, offset).unwrap();
        stored
    }

    /// A chunk, decoded and verified.
    pub(crate) fn chunk(&self, map: &ChunkMap, chunk: &Chunk) -> Vec<u8> {
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(id, _)| *id != chunk.extent) {
            let extent = map.extent(chunk.extent).unwrap();
            let blob = map.blob(extent.blob).unwrap();
            let len = usize::try_from(extent.stored_bytes).unwrap();
            let stored = self.read(&blob.digest.hex(), extent.offset.0, len);
            let mut decoded = Vec::new();
            let mut decoder = self.decoder.borrow_mut();
            decoder
                .decode(
                    extent.compression,
                    &stored,
                    extent.decoded_bytes,
                    &mut decoded,
                )
                .unwrap();
            *last = Some((chunk.extent, decoded));
        }
        let (_, decoded) = last.as_ref().unwrap();
        let start = usize::try_from(chunk.offset.0).unwrap();
        let bytes = &decoded[start..start + usize::try_from(chunk.bytes).unwrap()];
        assert!(chunk.digest.verifies(bytes), "the digest of {chunk:?}");
        bytes.to_vec()
    }

    /// The facts of a bootstrap's tree.
    pub(crate) fn facts(&self, bootstrap: &Bootstrap) -> facts::FactsOfTree {
        let map = &bootstrap.tree.map;
        facts::of_tree(&bootstrap.tree, &|chunk| self.chunk(map, chunk))
    }

    /// Reads a bootstrap, with what it needs from the blobs.
    pub(crate) fn open(&self, bootstrap: &[u8]) -> Bootstrap {
        let mut reader = Reader::open(bootstrap, None, &Limits::default()).unwrap();
        for need in reader.needs().to_vec() {
            let len = usize::try_from(need.range.end - need.range.start).unwrap();
            let given = self.read(&need.blob.hex(), need.range.start, len);
            reader.give(&need, given).unwrap();
        }
        reader.finish().unwrap()
    }
}

/// Nydus keeps no times in its short inodes, and counts names of what is no file by itself.
pub(crate) fn forget_what_nydus_forgets(
    expected: &mut facts::FactsOfTree,
    got: &facts::FactsOfTree,
) {
    for (path, fact) in expected.iter_mut() {
        if let Some(got) = got.get(path)
            && got.mtime == (0, 0)
        {
            fact.mtime = (0, 0);
        }
    }
}

/// Which files are in which order in blobs: for comparing maps of different writers.
pub(crate) fn digests(map: &ChunkMap) -> BTreeMap<String, u32> {
    map.chunks
        .iter()
        .map(|chunk| (chunk.digest.to_string(), chunk.bytes))
        .collect()
}
