//! eStargz layers: the end of a blob, and the table of contents that it leads to.

use std::io::Write as _;

use draught_digest::Digest;
use draught_estargz::{Limits, ReadError, Reader};
use draught_tar::Writer;
use draught_tree::{Entry, EntryKind, Kind, Meta, Tree};

use crate::rafs::check_map;

/// What a table may point into, in bytes.
const CONTENT_BYTES: usize = 4 << 10;

/// A layer that ends so, and a layer with this table: what is accepted has a map and a tree that hold
/// together.
pub(crate) fn layer(data: &[u8]) {
    // Whatever the end of a blob is, nothing outside of the blob is asked for.
    let refused = read(data, Digest::sha256(b""), &mut Tree::new());
    assert!(refused.is_err(), "a table with another digest");
    let (blob, toc) = layer_of(data);
    let mut tree = Tree::new();
    for _ in 0..2 {
        let Ok(()) = read(&blob, toc, &mut tree) else {
            return;
        };
    }
    check_map(&tree.map);
    let whole = snapshot(&tree);
    tree.drop_unused_chunks();
    check_map(&tree.map);
    assert!(snapshot(&tree) == whole, "a chunk that is used was dropped");
}

/// Of every file what its chunks hold.
fn snapshot(tree: &Tree) -> Vec<(Vec<u8>, Vec<Digest>)> {
    let mut files = Vec::new();
    for (path, node) in tree.walk() {
        if let Kind::File { bytes, chunks } = &tree.node(node).kind {
            let chunks: Vec<_> = chunks
                .iter()
                .map(|id| tree.map.chunk(*id).expect("a chunk"))
                .collect();
            let sum: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
            assert_eq!(sum, *bytes, "a file's chunks are not its size");
            files.push((path, chunks.iter().map(|chunk| chunk.digest).collect()));
        }
    }
    files
}

fn read(blob: &[u8], toc: Digest, tree: &mut Tree) -> Result<(), ReadError> {
    let limits = Limits {
        toc_stored_bytes_max: 1 << 20,
        toc_bytes_max: 1 << 20,
        entries_max: 1 << 12,
        ..Limits::default()
    };
    let mut reader = Reader::new(Digest::sha256(b"blob"), blob.len() as u64, toc, &limits);
    for _ in 0..2 {
        if let Some(need) = reader.needs() {
            let start = usize::try_from(need.start).expect("in the blob");
            let end = usize::try_from(need.end).expect("in the blob");
            reader.give(need.start, &blob[start..end])?;
        }
    }
    assert_eq!(reader.needs(), None, "two reads are all that is needed");
    reader.apply(tree).map(drop)
}

/// A layer with this table of contents.
fn layer_of(json: &[u8]) -> (Vec<u8>, Digest) {
    let mut archive = Writer::new(Vec::new());
    let kind = EntryKind::File {
        bytes: json.len() as u64,
        chunks: Box::default(),
    };
    let path = b"stargz.index.json"[..].into();
    let meta = Meta::default();
    archive
        .entry(&Entry { path, meta, kind })
        .expect("into memory");
    archive.data(json).expect("into memory");
    let archive = archive.finish().expect("into memory");
    let mut blob = vec![0; CONTENT_BYTES];
    let mut gzip = flate2::write::GzEncoder::new(&mut blob, flate2::Compression::none());
    gzip.write_all(&archive).expect("into memory");
    gzip.finish().expect("into memory");
    blob.extend_from_slice(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
    blob.extend_from_slice(format!("{CONTENT_BYTES:016x}STARGZ").as_bytes());
    blob.extend_from_slice(b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
    (blob, Digest::sha256(json))
}

/// Tables, and a layer with one.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let digest = Digest::sha256(b"chunk");
    let table = format!(
        r#"{{"version":1,"entries":[
{{"name":"first","type":"reg","size":7,"offset":100,"digest":"{digest}"}},
{{"name":".prefetch.landmark","type":"reg","size":1,"offset":200,"digest":"{digest}"}},
{{"name":"dir/","type":"dir","mode":493,"modtime":"2020-01-01T01:02:03.5+01:00","xattrs":{{"user.x":"YWJj"}}}},
{{"name":"dir/large","type":"reg","size":9000,"offset":300,"chunkSize":4096,"chunkDigest":"{digest}"}},
{{"name":"dir/large","type":"chunk","offset":400,"chunkOffset":4096,"chunkSize":4096,"chunkDigest":"{digest}"}},
{{"name":"dir/large","type":"chunk","offset":500,"chunkOffset":8192,"chunkDigest":"{digest}"}},
{{"name":"dir/small","type":"reg","size":9,"offset":500,"innerOffset":2048,"uid":1,"gid":2,"digest":"{digest}"}},
{{"name":"dir/hard","type":"hardlink","linkName":"dir/large"}},
{{"name":"dir/link","type":"symlink","linkName":"../first"}},
{{"name":"null","type":"char","devMajor":1,"devMinor":3}},
{{"name":"loop","type":"block","devMajor":7}},
{{"name":"pipe","type":"fifo"}},
{{"name":"dir/.wh.small","type":"reg"}},
{{"name":"empty","type":"reg"}}
]}}"#
    );
    let empty = br#"{"version":1,"entries":[]}"#.to_vec();
    let (layer, _) = layer_of(&empty);
    vec![table.into_bytes(), layer, empty]
}
