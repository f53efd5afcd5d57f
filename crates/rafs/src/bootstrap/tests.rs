//! Bootstraps written and read back, with and without batches, and bytes that are none.

use std::sync::OnceLock;

use draught_codec::{Decoder, Encoder};
use draught_digest::{Algorithm, Digest, Hasher};
use draught_testkit::facts;
use draught_tree::{
    Blob, Chunk, ChunkId, ChunkMap, Compression, Entry, EntryKind, Limits as TreeLimits, Meta,
    NodeId, Tree,
};
use proptest::prelude::*;

use super::*;
use crate::blob::{BlobFeatures, BlobInfo, BlobOptions, BlobWriter};

const CHUNK_BYTES: u32 = 16 << 10;

/// An image in memory: its tree, its blobs, what is known of them.
struct Made {
    tree: Tree,
    infos: Vec<BlobInfo>,
    blobs: Vec<Vec<u8>>,
}

fn meta() -> Meta {
    Meta {
        mode: 0o640,
        uid: 7,
        gid: 8,
        mtime: -5,
        mtime_nsec: 6,
        xattrs: vec![(b"user.a"[..].into(), b"b"[..].into())],
    }
}

fn add(tree: &mut Tree, path: &str, kind: EntryKind) -> NodeId {
    let path = path.as_bytes().into();
    let entry = Entry {
        path,
        meta: meta(),
        kind,
    };
    tree.apply(entry, &TreeLimits::default()).unwrap().unwrap()
}

/// Contents of files: small ones, one that is cut into chunks, one that does not compress.
fn contents(layer: u8) -> Vec<Vec<u8>> {
    let noise = (0..3000_u64)
        .flat_map(|n| *Digest::sha256(&[&[layer], &n.to_le_bytes()[..]].concat()).as_bytes());
    let mut contents = vec![noise.take(70_001).collect()];
    for at in 1..40_u8 {
        contents.push(vec![layer.wrapping_mul(50) ^ at; usize::from(at) * 97]);
    }
    contents.push([layer, 1, 2, 3].repeat(20_000));
    contents
}

/// Two layers, each with a blob.
fn make(compression: Compression, batches: bool) -> Made {
    let mut tree = Tree::new();
    let (mut infos, mut blobs) = (Vec::new(), Vec::new());
    for layer in 0..2 {
        tree.begin_layer();
        let (blob, info, files) = make_blob(layer, compression, batches, &mut tree.map);
        for (at, (bytes, chunks)) in files.into_iter().enumerate() {
            let kind = EntryKind::File {
                bytes,
                chunks: chunks.into(),
            };
            add(&mut tree, &format!("layer{layer}/{at}"), kind);
        }
        infos.push(info);
        blobs.push(blob);
    }
    add(&mut tree, "link", EntryKind::Symlink(b"layer0"[..].into()));
    add(
        &mut tree,
        "hard",
        EntryKind::HardLink(b"layer0/1"[..].into()),
    );
    add(
        &mut tree,
        "empty",
        EntryKind::File {
            bytes: 0,
            chunks: Box::default(),
        },
    );
    Made { tree, infos, blobs }
}

type Files = Vec<(u64, Vec<ChunkId>)>;

fn make_blob(
    layer: u8,
    compression: Compression,
    batches: bool,
    map: &mut ChunkMap,
) -> (Vec<u8>, BlobInfo, Files) {
    let mut writer = BlobWriter::new(BlobOptions {
        compression,
        digester: Algorithm::Sha256,
        chunk_bytes_max: CHUNK_BYTES,
        batches,
    });
    let mut encoder = Encoder::new(compression, 3).unwrap();
    let mut out = Vec::new();
    let contents = contents(layer);
    let chunks = contents
        .iter()
        .flat_map(|content| content.chunks(CHUNK_BYTES as usize));
    let chunks: Vec<&[u8]> = chunks.collect();
    // Runs of small chunks share an extent.
    let together = |one: &&[u8], other: &&[u8]| batches && one.len() < 2000 && other.len() < 2000;
    for run in chunks.chunk_by(together) {
        let facts = run
            .iter()
            .map(|bytes| (Digest::sha256(bytes), u32::try_from(bytes.len()).unwrap()));
        let facts: Vec<_> = facts.collect();
        let before = out.len();
        let used = encoder.encode(&run.concat(), &mut out).unwrap();
        writer
            .push(&facts, u32::try_from(out.len() - before).unwrap(), used)
            .unwrap();
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&out);
    let (bytes, mut tail) = writer.finish_data(hasher, false).unwrap();
    out.extend_from_slice(&bytes);
    let table = tail.take_table();
    let (bytes, mut info) = tail.finish(None).unwrap();
    out.extend_from_slice(&bytes);
    let digest = Digest::sha256(&out);
    info.digest = Some(digest);
    let blob = Blob {
        digest,
        stored_bytes: info.stored_bytes,
        device_bytes: info.device_bytes,
    };
    let blob = map.push_blob(blob).unwrap();
    let mut next = table.append_to(map, blob).unwrap().0;
    let mut files = Files::new();
    for content in &contents {
        let ids = content.chunks(CHUNK_BYTES as usize).map(|_| {
            next += 1;
            ChunkId(next - 1)
        });
        files.push((content.len() as u64, ids.collect()));
    }
    (out, info, files)
}

impl Made {
    fn options(&self) -> Options {
        Options {
            chunk_bytes: CHUNK_BYTES,
            compression: self.infos[0].compression,
            digester: Algorithm::Sha256,
        }
    }

    fn write(&self, prefetch: &[NodeId]) -> Result<Vec<u8>, WriteError> {
        let input = Input {
            tree: &self.tree,
            blobs: &self.infos,
            chunk_indexes: &chunk_indexes_in_order(&self.tree),
            prefetch,
        };
        let mut out = Vec::new();
        write(&input, &self.options(), &mut out)?;
        Ok(out)
    }

    fn read_blob(&self, need: &Need) -> Vec<u8> {
        let at = self
            .infos
            .iter()
            .position(|info| info.digest == Some(need.blob))
            .unwrap();
        let start = usize::try_from(need.range.start).unwrap();
        self.blobs[at][start..usize::try_from(need.range.end).unwrap()].to_vec()
    }

    fn chunk(&self, map: &ChunkMap, chunk: &Chunk) -> Vec<u8> {
        let extent = map.extent(chunk.extent).unwrap();
        let start = usize::try_from(extent.offset.0).unwrap();
        let stored = &self.blobs[extent.blob.index()][start..start + extent.stored_bytes as usize];
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
        let bytes = decoded[start..start + chunk.bytes as usize].to_vec();
        assert!(chunk.digest.verifies(&bytes));
        bytes
    }

    fn facts(&self, tree: &Tree) -> facts::FactsOfTree {
        facts::of_tree(tree, &|chunk| self.chunk(&tree.map, chunk))
    }
}

fn read(made: &Made, bootstrap: &[u8]) -> Result<Bootstrap, ReadError> {
    let mut reader = Reader::open(bootstrap, None, &Limits::default())?;
    for need in reader.needs().to_vec() {
        reader.give(&need, made.read_blob(&need))?;
    }
    reader.finish()
}

#[test]
fn bootstraps_are_read_back_with_and_without_batches() {
    for compression in [Compression::None, Compression::Lz4Block, Compression::Zstd] {
        for batches in [false, true] {
            let made = make(compression, batches);
            let prefetch = [made.tree.lookup(b"layer1/3").unwrap(), Tree::ROOT];
            let bytes = made.write(&prefetch).unwrap();
            let reader = Reader::open(&bytes, None, &Limits::default()).unwrap();
            // A table of contents and a chunk-info table a blob.
            assert_eq!(reader.needs().len(), if batches { 4 } else { 0 });
            let got = read(&made, &bytes).unwrap();
            assert_eq!(got.tree.map, made.tree.map);
            assert_eq!(got.blobs, made.infos);
            assert_eq!(got.chunk_indexes, chunk_indexes_in_order(&made.tree));
            facts::assert_same(&made.facts(&got.tree), &made.facts(&made.tree));
            let paths = [&b"layer1/3"[..], b""];
            let nodes = paths.map(|path| got.tree.lookup(path).unwrap());
            assert_eq!(got.prefetch, nodes);
        }
    }
}

#[test]
fn chunks_that_no_file_has_are_left_out() {
    let mut made = make(Compression::Zstd, false);
    let whole = read(&made, &made.write(&[]).unwrap()).unwrap();
    made.tree.begin_layer();
    let whiteout = Entry {
        path: b"layer0/.wh.0"[..].into(),
        meta: meta(),
        kind: EntryKind::File {
            bytes: 0,
            chunks: Box::default(),
        },
    };
    made.tree.apply(whiteout, &TreeLimits::default()).unwrap();
    let bytes = made.write(&[]).unwrap();
    let got = read(&made, &bytes).unwrap();
    let gone = whole.tree.map.chunks.len() - got.tree.map.chunks.len();
    assert_eq!(gone, 70_001_usize.div_ceil(CHUNK_BYTES as usize));
    // The others keep their indexes, and can be written from what was read.
    assert_eq!(got.chunk_indexes[0], u32::try_from(gone).unwrap());
    facts::assert_same(&made.facts(&got.tree), &made.facts(&made.tree));
    let again = Input {
        tree: &got.tree,
        blobs: &got.blobs,
        chunk_indexes: &got.chunk_indexes,
        prefetch: &[],
    };
    let mut out = Vec::new();
    write(&again, &made.options(), &mut out).unwrap();
    assert!(out == bytes, "a copy is the same bytes");
}

#[test]
fn a_table_that_is_not_the_one_of_the_bootstrap_is_refused() {
    let made = make(Compression::Zstd, true);
    let bytes = made.write(&[]).unwrap();
    let needs = Reader::open(&bytes, None, &Limits::default())
        .unwrap()
        .needs()
        .to_vec();
    for wrong in 0..needs.len() {
        let mut reader = Reader::open(&bytes, None, &Limits::default()).unwrap();
        for (at, need) in needs.iter().enumerate() {
            let mut given = made.read_blob(need);
            if at == wrong {
                let middle = given.len() / 3;
                given[middle] ^= 0x10;
            }
            reader.give(need, given).unwrap();
        }
        let error = reader.finish().unwrap_err().to_string();
        assert!(error.contains("of blob sha256:"), "{error}");
    }
    let reader = Reader::open(&bytes, None, &Limits::default()).unwrap();
    assert!(matches!(
        reader.finish().unwrap_err(),
        ReadError::Missing { .. }
    ));
}

#[test]
fn limits_of_the_format_are_named() {
    let made = make(Compression::None, false);
    type Change = dyn Fn(&mut Made);
    let write_with = |change: &Change| {
        let mut made = make(Compression::None, false);
        change(&mut made);
        let error = made.write(&[]).unwrap_err();
        let source = std::error::Error::source(&error);
        let deeper = source
            .and_then(std::error::Error::source)
            .map(ToString::to_string);
        format!(
            "{error}: {}: {deeper:?}",
            source.map(ToString::to_string).unwrap_or_default()
        )
    };
    let checks: [(&Change, &str); 7] = [
        (
            &|made| {
                let (blob, info) = (made.tree.map.blobs[0].clone(), made.infos[0].clone());
                made.tree.map.blobs.resize(255, blob);
                made.infos.resize(255, info);
            },
            "255 blobs, an image has 254 at most",
        ),
        (
            &|made| made.infos[1].chunks = CHUNKS_MAX + 1,
            "blob 1 has more than 2^24 chunks",
        ),
        (&|made| made.infos[1].chunks = 3, "has no place on a device"),
        (
            &|made| made.infos[0].device_bytes = DEVICE_BYTES_MAX + 1,
            "blob 0 has more than 16 TiB",
        ),
        (
            &|made| made.infos[0].stored_bytes = STORED_BYTES_MAX + 1,
            "blob 0 has more than 1 TiB",
        ),
        (
            &|made| made.infos[0].chunk_bytes_max = 4096,
            "blob 0 has another chunk size",
        ),
        (
            &|made| made.tree.map.chunks[0].bytes = 5,
            "chunk 0 has 5 bytes, at its place in the file it must have 16384",
        ),
    ];
    for (change, expect) in checks {
        let words = write_with(change);
        assert!(words.contains(expect), "{words:?} does not say {expect:?}");
    }
    assert!(made.write(&[]).is_ok());
}

/// A bootstrap with everything, made once.
fn bytes() -> &'static (Made, Vec<u8>) {
    static BYTES: OnceLock<(Made, Vec<u8>)> = OnceLock::new();
    BYTES.get_or_init(|| {
        let made = make(Compression::Zstd, true);
        let bytes = made.write(&[Tree::ROOT]).unwrap();
        (made, bytes)
    })
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let (_, good) = bytes();
    let flags = |flags: u64| {
        let mut bytes = good.clone();
        bytes[1152..1160].copy_from_slice(&flags.to_le_bytes());
        bytes
    };
    let blob = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[4096 + at..4096 + at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let features = |more: BlobFeatures| blob(84, BlobFeatures::ALIGNED.union(more).bits());
    let mut v5 = good.clone();
    v5[..4].copy_from_slice(&0x5241_4653_u32.to_le_bytes());
    let mut plain = good.clone();
    plain[1024 + 8..1024 + 12].fill(0);
    for (bytes, expect) in [
        (v5, "RAFS version 5"),
        (plain, "does not say that it is one"),
        (flags(0x84 | 0x200), "tarfs"),
        (flags(0x84 | 0x0200_0000), "encryption"),
        (flags(0x84 | 0x1000), "flags 0x1000"),
        (flags(0x04), "no compressor"),
        (flags(0x80), "no digest algorithm"),
        (features(BlobFeatures::ZRAN), "zran"),
        (features(BlobFeatures::ENCRYPTED), "encrypted"),
        (features(BlobFeatures::EXTERNAL), "external"),
        (features(BlobFeatures::SEPARATE), "separate"),
        (
            features(BlobFeatures::from_bits(0x8000)),
            "unknown bits 0x8000",
        ),
        (blob(84, 0), "not aligned"),
        (blob(216, 1), "encrypted"),
        (blob(64, 1), "says to be another one"),
        (blob(76, 9), "compressor is not known"),
        (
            blob(0, u32::from_le_bytes(*b"nope")),
            "its id is no SHA-256",
        ),
    ] {
        let error = Reader::open(&bytes, None, &Limits::default()).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let words = format!("{error}: {source:?}");
        assert!(words.contains(expect), "{words:?} does not say {expect:?}");
    }
}

#[test]
fn a_bootstrap_out_of_a_blob_takes_that_blobs_digest() {
    let mut made = make(Compression::Zstd, false);
    made.infos[1].digest = None;
    let bytes = made.write(&[]).unwrap();
    let error = Reader::open(&bytes, None, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("its id is left open"), "{error}");
    let own = Digest::sha256(b"own");
    let reader = Reader::open(&bytes, Some(own), &Limits::default()).unwrap();
    assert_eq!(reader.blobs()[1].digest, Some(own));
}

fn small_limits() -> Limits {
    Limits {
        metadata: draught_erofs::Limits {
            names_max: 1000,
            directory_bytes_max: 1 << 20,
            chunk_refs_max: 10_000,
            loose_bytes_max: 1 << 16,
            ..draught_erofs::Limits::default()
        },
        ..Limits::default()
    }
}

fn read_changed(made: &Made, bytes: &[u8]) -> Result<Bootstrap, ReadError> {
    let mut reader = Reader::open(bytes, None, &small_limits())?;
    for need in reader.needs().to_vec() {
        // Whatever is asked for is given, as far as it is there.
        let at = made
            .infos
            .iter()
            .position(|info| info.digest == Some(need.blob));
        let blob = made.blobs.get(at.unwrap_or(0)).unwrap();
        let len = usize::try_from(need.range.end - need.range.start).unwrap();
        let start = usize::try_from(need.range.start)
            .unwrap_or(0)
            .min(blob.len());
        let mut given = blob[start..blob.len().min(start.saturating_add(len))].to_vec();
        given.resize(len.min(1 << 20), 0);
        reader.give(&need, given)?;
    }
    reader.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn changed_bootstraps_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        area in 0..4_usize,
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let (made, bytes) = bytes();
        let mut bytes = bytes.clone();
        // Superblocks, blob table, inodes, or anything: most bytes are content that nobody looks at.
        let (start, span) = match area {
            0 => (1024, 640),
            1 => (4096, 512),
            2 => (8192, 1024),
            _ => (0, bytes.len()),
        };
        for (at, value) in changes {
            bytes[start + at.index(span)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(read) = read_changed(made, &bytes) {
            prop_assert!(read.tree.arena_len() <= 1001);
            for chunk in &read.tree.map.chunks {
                let extent = read.tree.map.extent(chunk.extent).unwrap();
                let end = chunk.offset.0 + u64::from(chunk.bytes);
                prop_assert!(end <= u64::from(extent.decoded_bytes));
            }
        }
    }
}
