//! Writing layers, and looking at what was written from all sides.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::num::NonZeroUsize;

use draught_codec::{Decoder, LayerDecoder, LayerLimits};
use draught_digest::Digest;
use draught_estargz::{Applied, Footer, Limits, Reader, WriteError, WriteOptions, Written};
use draught_tar::Writer;
use draught_testkit::compare::{self, Snapshot};
use draught_tree::{Entry, EntryKind, Kind, Meta, NodeId, Tree};
use serde_json::Value;

/// What the format keeps for itself.
pub(crate) const OWN: [&str; 3] = [
    "/stargz.index.json",
    "/.prefetch.landmark",
    "/.no.prefetch.landmark",
];

/// A layer that was written.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) written: Written,
}

pub(crate) fn options() -> WriteOptions {
    WriteOptions {
        chunk_bytes: 8192,
        threads: NonZeroUsize::new(2).unwrap(),
        ..WriteOptions::default()
    }
}

pub(crate) fn write(archive: &[u8], options: &WriteOptions) -> Result<Layer, WriteError> {
    let mut blob = Vec::new();
    let written = draught_estargz::write(archive, &mut blob, tempfile::tempfile, options)?;
    Ok(Layer { blob, written })
}

pub(crate) fn file(bytes: u64) -> EntryKind {
    EntryKind::File {
        bytes,
        chunks: Box::default(),
    }
}

/// An archive in the making.
#[derive(Debug)]
pub(crate) struct Archive(pub(crate) Writer<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    pub(crate) fn entry(&mut self, path: &str, kind: EntryKind) -> &mut Self {
        let meta = Meta {
            mode: 0o644,
            mtime: 1_000_000,
            ..Meta::default()
        };
        let path = path.as_bytes().into();
        self.0.entry(&Entry { path, meta, kind }).unwrap();
        self
    }

    pub(crate) fn dir(&mut self, path: &str) -> &mut Self {
        self.entry(path, EntryKind::Directory)
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> &mut Self {
        self.entry(path, file(content.len() as u64));
        self.0.data(content).unwrap();
        self
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(path, EntryKind::HardLink(target.as_bytes().into()))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// Bytes that hardly compress.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let blocks = (0..).flat_map(|at: u64| {
        let digest = Digest::sha256(&[seed.to_le_bytes(), at.to_le_bytes()].concat());
        digest.as_bytes().to_vec()
    });
    blocks.take(bytes).collect()
}

impl Layer {
    pub(crate) fn decoded(&self) -> Vec<u8> {
        let mut decoded = Vec::new();
        let mut decoder = LayerDecoder::new(&self.blob[..], LayerLimits::default()).unwrap();
        decoder.read_to_end(&mut decoded).unwrap();
        decoded
    }

    /// The table of contents.
    pub(crate) fn toc(&self) -> Vec<Value> {
        let footer = Footer::parse(&self.blob).unwrap();
        let start = usize::try_from(footer.toc_offset).unwrap();
        let mut archive = Vec::new();
        let member = &self.blob[start..self.blob.len() - 51];
        let mut decoder = LayerDecoder::new(member, LayerLimits::default()).unwrap();
        decoder.read_to_end(&mut archive).unwrap();
        let mut reader = draught_tar::Reader::new(&archive[..], draught_tar::Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(&*entry.path, b"stargz.index.json");
        let mut json = Vec::new();
        reader.read_to_end(&mut json).unwrap();
        assert_eq!(self.written.toc_digest, Digest::sha256(&json));
        assert_eq!(self.written.toc_bytes, json.len() as u64);
        let mut document: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(document["version"], 1);
        serde_json::from_value(document["entries"].take()).unwrap()
    }

    /// The entry of this name.
    pub(crate) fn toc_entry(&self, name: &str) -> Value {
        let mut entries = self.toc().into_iter();
        entries.find(|entry| entry["name"] == name).unwrap()
    }

    pub(crate) fn apply(&self, tree: &mut Tree) -> Applied {
        let bytes = self.blob.len() as u64;
        let (blob, toc) = (Digest::sha256(&self.blob), self.written.toc_digest);
        let mut reader = Reader::new(blob, bytes, toc, &Limits::default());
        while let Some(need) = reader.needs() {
            let range = usize::try_from(need.start).unwrap()..usize::try_from(need.end).unwrap();
            reader.give(need.start, &self.blob[range]).unwrap();
        }
        reader.apply(tree).unwrap()
    }

    /// What must be true of every layer whatever is in it.
    pub(crate) fn check(&self) {
        let written = &self.written;
        assert_eq!(written.stored_bytes, self.blob.len() as u64);
        let decoded = self.decoded();
        assert_eq!(written.uncompressed_bytes, decoded.len() as u64);
        assert_eq!(written.diff_id, Digest::sha256(&decoded));
        let toc = self.toc();
        self.check_toc(&toc);
        let footer = Footer::parse(&self.blob).unwrap();
        let end = footer.toc_offset + written.toc_stored_bytes;
        assert_eq!(end, self.blob.len() as u64 - 51);
    }

    /// What readers rely on.
    fn check_toc(&self, toc: &[Value]) {
        let number = |entry: &Value, field: &str| entry[field].as_u64().unwrap_or(0);
        let mut names = BTreeSet::new();
        let (mut offset, mut entries, mut chunks) = (0, 0, 0);
        let mut left = 0;
        let mut whole: Vec<u8> = Vec::new();
        let mut digest = String::new();
        for entry in toc {
            let is_chunk = entry["type"] == "chunk";
            if !is_chunk {
                assert_eq!(left, 0, "{entry}");
                assert!(names.insert(entry["name"].as_str().unwrap()), "{entry}");
                entries += 1;
            }
            let size = number(entry, "size");
            if entry["type"] == "reg" {
                left = size;
                whole.clear();
                digest = entry["digest"].as_str().unwrap().to_owned();
                if size == 0 {
                    assert_eq!(digest, Digest::sha256(b"").to_string());
                }
            }
            if !is_chunk && size == 0 {
                assert_eq!(number(entry, "offset"), 0, "{entry}");
                continue;
            }
            chunks += 1;
            // The end of a member is found by going back through the entries.
            assert!(number(entry, "offset") >= offset.max(1), "{entry}");
            offset = number(entry, "offset");
            let bytes = match number(entry, "chunkSize") {
                0 => left,
                bytes => bytes,
            };
            assert!(bytes > 0 && bytes <= left, "{entry}");
            left -= bytes;
            let chunk = self.chunk(offset, number(entry, "innerOffset"), bytes);
            assert_eq!(entry["chunkDigest"], Digest::sha256(&chunk).to_string());
            assert_eq!(number(entry, "chunkOffset"), whole.len() as u64);
            whole.extend(chunk);
            if left == 0 {
                assert_eq!(number(entry, "chunkSize"), 0, "{entry}");
                assert_eq!(digest, Digest::sha256(&whole).to_string());
            }
        }
        assert_eq!(left, 0);
        // The landmark is not counted.
        assert_eq!(self.written.entries, entries - 1);
        assert!(self.written.chunks >= chunks - 1);
    }

    /// A chunk, as readers get it: they decode the member at `offset` and skip `inner` bytes of it.
    fn chunk(&self, offset: u64, inner: u64, bytes: u64) -> Vec<u8> {
        let member = &self.blob[usize::try_from(offset).unwrap()..];
        let mut decoded = Vec::new();
        let one = flate2::bufread::GzDecoder::new(member);
        one.take(inner + bytes).read_to_end(&mut decoded).unwrap();
        decoded.split_off(usize::try_from(inner).unwrap())
    }
}

/// The content of files, decoded chunk by chunk and verified.
fn content(tree: &Tree, node: NodeId, blobs: &BTreeMap<Digest, &[u8]>) -> Digest {
    let Kind::File { chunks, .. } = &tree.node(node).kind else {
        panic!("it is no file");
    };
    let mut content = Vec::new();
    for chunk in chunks {
        let chunk = tree.map.chunk(*chunk).unwrap();
        let extent = tree.map.extent(chunk.extent).unwrap();
        let blob = blobs[&tree.map.blob(extent.blob).unwrap().digest];
        let start = usize::try_from(extent.offset.0).unwrap();
        let stored = &blob[start..start + extent.stored_bytes as usize];
        let mut decoded = Vec::new();
        let bytes = extent.decoded_bytes;
        let done = Decoder::new().decode(extent.compression, stored, bytes, &mut decoded);
        done.unwrap();
        let start = usize::try_from(chunk.offset.0).unwrap();
        let piece = &decoded[start..start + chunk.bytes as usize];
        assert!(chunk.digest.verifies(piece));
        content.extend_from_slice(piece);
    }
    Digest::sha256(&content)
}

/// What our reader makes of layers.
pub(crate) fn read(layers: &[Layer]) -> Snapshot {
    let mut tree = Tree::new();
    for layer in layers {
        layer.apply(&mut tree);
    }
    let blobs = layers
        .iter()
        .map(|layer| (Digest::sha256(&layer.blob), &layer.blob[..]));
    let blobs: BTreeMap<_, _> = blobs.collect();
    compare::snapshot_tree(&tree, &|node| content(&tree, node, &blobs))
}

/// What archives are.
pub(crate) fn applied<'a>(
    archives: impl IntoIterator<Item = &'a Vec<u8>>,
) -> anyhow::Result<Snapshot> {
    let mut applied = compare::Applied::default();
    for archive in archives {
        applied.layer(&archive[..])?;
    }
    Ok(applied.snapshot())
}

/// Without what the format keeps for itself.
pub(crate) fn without_own(mut snapshot: Snapshot) -> Snapshot {
    for path in OWN {
        snapshot.remove(path.as_bytes());
    }
    snapshot
}

/// That layers written from these archives are the same to those who unpack them and to those who read their
/// tables.
pub(crate) fn check(archives: &[Vec<u8>], options: &WriteOptions) -> Vec<Layer> {
    let expected = applied(archives).unwrap();
    let layers = archives.iter().map(|archive| write(archive, options));
    let layers: Vec<Layer> = layers.collect::<Result<_, _>>().unwrap();
    check_layers(&layers, &expected);
    layers
}

pub(crate) fn check_layers(layers: &[Layer], expected: &Snapshot) {
    for layer in layers {
        layer.check();
    }
    compare::assert_same(&read(layers), expected);
    let decoded: Vec<_> = layers.iter().map(Layer::decoded).collect();
    compare::assert_same(&without_own(applied(&decoded).unwrap()), expected);
}
