use std::io::Write;
use std::process::{Command, Stdio};

use draught_codec::{Decoder, Encoder};
use draught_digest::{Algorithm, Digest, Hasher};
use draught_testkit::{Scratch, need};
use draught_tree::{BlobId, BlobOffset, ChunkMap, Compression};
use proptest::prelude::*;

use super::*;

const BOOTSTRAP: &[u8] = &[b'b'; 8192];

fn options(compression: Compression, batches: bool) -> BlobOptions {
    BlobOptions {
        compression,
        digester: Algorithm::Blake3,
        chunk_bytes_max: 1 << 20,
        batches,
    }
}

/// Chunks of every size that matters; the noise does not compress.
fn contents() -> Vec<Vec<u8>> {
    let noise = |seed: u32, bytes: usize| -> Vec<u8> {
        (0..bytes.div_ceil(32))
            .flat_map(|n| {
                let seed = u64::from(seed) << 32 | n as u64;
                *Digest::blake3(&seed.to_le_bytes()).as_bytes()
            })
            .take(bytes)
            .collect()
    };
    vec![
        b"x".to_vec(),
        vec![7; 4096],
        vec![8; 4097],
        noise(1, 5000),
        noise(2, 1 << 20),
        vec![9; 1 << 20],
        b"one small file\n".repeat(30),
        b"another small file\n".repeat(30),
        noise(3, 100),
    ]
}

/// A whole blob, and what its writer says of it. With batches, runs of small chunks share an extent.
fn blob(compression: Compression, batches: bool) -> (Vec<u8>, BlobInfo, ChunkTable) {
    let mut writer = BlobWriter::new(options(compression, batches));
    let mut encoder = Encoder::new(compression, 3).unwrap();
    let mut out = Vec::new();
    let contents = contents();
    let runs = if batches {
        vec![
            &contents[..1],
            &contents[1..4],
            &contents[4..5],
            &contents[5..6],
            &contents[6..],
        ]
    } else {
        contents.chunks(1).collect()
    };
    for run in runs {
        let chunks: Vec<(Digest, u32)> = run
            .iter()
            .map(|data| (Digest::blake3(data), u32::try_from(data.len()).unwrap()))
            .collect();
        let before = out.len();
        let used = encoder.encode(&run.concat(), &mut out).unwrap();
        let stored = u32::try_from(out.len() - before).unwrap();
        writer.push(&chunks, stored, used).unwrap();
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&out);
    let (bytes, mut tail) = writer.finish_data(hasher, true).unwrap();
    out.extend_from_slice(&bytes);
    assert_eq!(tail.info().stored_bytes, out.len() as u64);
    let table = tail.take_table();
    let (bytes, mut info) = tail.finish(Some(BOOTSTRAP)).unwrap();
    out.extend_from_slice(&bytes);
    assert_eq!(info.stored_bytes, out.len() as u64);
    info.digest = Some(Digest::sha256(&out));
    (out, info, table)
}

fn toc(blob: &[u8]) -> Toc {
    let tail = blob
        .len()
        .saturating_sub(usize::try_from(TOC_TAIL_BYTES).unwrap());
    Toc::decode(&blob[tail..], blob.len() as u64, &TocLimits::default()).unwrap()
}

fn part<'a>(blob: &'a [u8], entry: &TocEntry) -> &'a [u8] {
    slice(blob, entry.offset, entry.stored_bytes)
}

fn slice(blob: &[u8], offset: BlobOffset, bytes: u64) -> &[u8] {
    let at = usize::try_from(offset.0).unwrap();
    &blob[at..at + usize::try_from(bytes).unwrap()]
}

/// What `ChunkTable::decode` is given, out of a blob.
fn stored_table<'a>(blob: &'a [u8], info: &BlobInfo) -> &'a [u8] {
    slice(
        blob,
        info.chunk_info.offset,
        info.chunk_info.stored_bytes + 4096,
    )
}

fn decode_all(blob: &[u8], table: &ChunkTable) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    table
        .chunks
        .iter()
        .map(|chunk| {
            let extent = &table.extents[chunk.extent.index()];
            let stored = slice(blob, extent.offset, extent.stored_bytes.into());
            decoder
                .decode(extent.compression, stored, extent.decoded_bytes, &mut out)
                .unwrap();
            let at = usize::try_from(chunk.offset.0).unwrap();
            let data = out[at..at + usize::try_from(chunk.bytes).unwrap()].to_vec();
            assert!(chunk.digest.verifies(&data));
            data
        })
        .collect()
}

#[test]
fn a_blob_reads_back_as_it_was_written() {
    for compression in [Compression::None, Compression::Lz4Block, Compression::Zstd] {
        for batches in [false, true] {
            let (blob, info, table) = blob(compression, batches);
            let toc = toc(&blob);
            assert_eq!((toc.bytes, toc.sha256), {
                let range = info.toc.unwrap();
                (range.bytes, range.sha256)
            });
            assert_eq!(
                toc.bootstrap()
                    .unwrap()
                    .decode(part(&blob, toc.bootstrap().unwrap()))
                    .unwrap(),
                BOOTSTRAP
            );
            let header = toc.chunk_info_header().unwrap();
            header.decode(part(&blob, header)).unwrap();
            assert_eq!(toc.chunk_info().unwrap().offset, info.chunk_info.offset);
            let digests = toc
                .chunk_digests()
                .unwrap()
                .decode(part(&blob, toc.chunk_digests().unwrap()))
                .unwrap();
            let read = ChunkTable::decode(
                stored_table(&blob, &info),
                &digests,
                &info,
                &TableLimits::default(),
            )
            .unwrap();
            assert_eq!(read, table, "{compression:?} {batches}");
            assert_eq!(decode_all(&blob, &read), contents());
            assert_eq!(toc.data().unwrap().decoded_bytes, info.device_bytes);
        }
    }
}

#[test]
fn tables_of_two_blobs_share_a_map() {
    let (_, _, table) = blob(Compression::Zstd, true);
    let mut map = ChunkMap::default();
    assert_eq!(table.clone().append_to(&mut map, BlobId(0)).unwrap().0, 0);
    let chunks = u32::try_from(table.chunks.len()).unwrap();
    assert_eq!(table.append_to(&mut map, BlobId(1)).unwrap().0, chunks);
    let last = map.chunks.last().unwrap();
    assert_eq!(map.blob_of(last), Some(BlobId(1)));
    assert_eq!(last.extent.index(), map.extents.len() - 1);
}

#[test]
fn what_the_format_cannot_express_is_refused() {
    let digest = Digest::blake3(b"");
    let mut writer = BlobWriter::new(options(Compression::None, false));
    assert!(
        writer
            .push(&[(digest, 1), (digest, 1)], 2, Compression::None)
            .is_err()
    );
    assert!(
        writer
            .push(&[(digest, (16 << 20) + 1)], 1, Compression::Zstd)
            .is_err()
    );
    let mut writer = BlobWriter::new(options(Compression::None, true));
    assert!(
        writer
            .push(&[(digest, 16 << 20)], 16 << 20, Compression::None)
            .is_err()
    );
    let empty = BlobWriter::new(options(Compression::None, true));
    assert!(
        empty
            .finish_data(Hasher::new(Algorithm::Sha256), false)
            .is_err()
    );
}

#[test]
fn sizes_of_16_mib_fit_into_a_short_entry() {
    let digest = Digest::blake3(b"");
    let mut writer = BlobWriter::new(options(Compression::Zstd, false));
    writer
        .push(&[(digest, 16 << 20)], 16 << 20, Compression::None)
        .unwrap();
    writer
        .push(&[(digest, (1 << 20) + 1)], (1 << 20) - 1, Compression::Zstd)
        .unwrap();
    let (bytes, tail) = writer
        .finish_data(Hasher::new(Algorithm::Sha256), false)
        .unwrap();
    let info = tail.info();
    let at = usize::try_from(info.chunk_info.offset.0 - (17 << 20) + 1).unwrap();
    let stored = &bytes[at..at + usize::try_from(info.chunk_info.stored_bytes).unwrap() + 4096];
    let digests = [*digest.as_bytes(); 2].concat();
    let read = ChunkTable::decode(stored, &digests, info, &TableLimits::default()).unwrap();
    assert_eq!(&read, tail.table());
}

#[test]
fn features_that_are_not_read_are_refused_by_name() {
    let (blob, info, table) = blob(Compression::Zstd, false);
    let digests: Vec<u8> = table
        .chunks
        .iter()
        .flat_map(|chunk| *chunk.digest.as_bytes())
        .collect();
    for (bits, expect) in [
        (BlobFeatures::ZRAN, "zran"),
        (BlobFeatures::ENCRYPTED, "encrypted"),
        (BlobFeatures::from_bits(0x8000), "unknown bits 0x8000"),
    ] {
        let info = BlobInfo {
            features: info.features.union(bits),
            ..info.clone()
        };
        let error = ChunkTable::decode(
            stored_table(&blob, &info),
            &digests,
            &info,
            &TableLimits::default(),
        );
        let ChunkTableError::Unsupported { source } = error.unwrap_err() else {
            panic!("{expect} was not named");
        };
        assert!(source.to_string().contains(expect), "{source}");
    }
}

#[test]
fn a_blob_without_a_table_of_contents_is_said_to_have_none() {
    for tail in [&b""[..], &[0; 511], &[0; 4096]] {
        let outcome = Toc::decode(tail, 1 << 20, &TocLimits::default());
        assert!(matches!(outcome, Err(TocError::Missing)));
    }
}

/// The facts of a blob, as its own table of contents and chunk-info header state them.
fn info_of(blob: &[u8], chunks: u32, device_bytes: u64, features: BlobFeatures) -> BlobInfo {
    let toc = toc(blob);
    let entry = toc.chunk_info().unwrap();
    BlobInfo {
        digest: Some(Digest::sha256(blob)),
        features,
        compression: Compression::Zstd,
        digester: Algorithm::Blake3,
        chunk_bytes_max: 1 << 20,
        chunks,
        stored_bytes: blob.len() as u64,
        device_bytes,
        chunk_info: ChunkInfoRange {
            offset: entry.offset,
            stored_bytes: entry.stored_bytes,
            decoded_bytes: entry.decoded_bytes,
            compression: entry.compression,
        },
        toc: Some(TocRange {
            bytes: toc.bytes,
            sha256: toc.sha256,
        }),
    }
}

/// A blob with [`contents`] that nydus packed.
fn packed_by_nydus(scratch: &Scratch) -> Option<Vec<u8>> {
    let (nydus, tar) = (need::nydus()?, need::tool("tar")?);
    let root = scratch.dir("root");
    for (index, data) in contents().iter().enumerate() {
        fs_err::write(root.join(format!("{index}")), data).unwrap();
    }
    let archive = scratch.join("layer.tar");
    let path = scratch.join("blob");
    let made = Command::new(tar)
        .args(["--sort=name", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    let mut pack = Command::new(nydus.image);
    pack.args("create --type tar-rafs --fs-version 6 --blob-inline-meta".split(' '))
        .args("--features blob-toc --whiteout-spec none --compressor zstd --blob".split(' '))
        .args([&path, &archive]);
    let packed = pack.stdout(Stdio::null()).stdin(Stdio::null()).status();
    assert!(packed.unwrap().success());
    Some(fs_err::read(path).unwrap())
}

#[test]
fn blobs_written_by_nydus_read_here_and_ours_have_the_same_parts() {
    let scratch = Scratch::new();
    let Some(theirs) = packed_by_nydus(&scratch) else {
        return;
    };
    let (ours, our_info, _) = blob(Compression::Zstd, false);
    let (their_toc, our_toc) = (toc(&theirs), toc(&ours));
    let names = |toc: &Toc| {
        toc.entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.compression))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&their_toc), names(&our_toc));
    let digests = their_toc.chunk_digests().unwrap();
    let digests = digests.decode(part(&theirs, digests)).unwrap();
    let chunks = u32::try_from(digests.len() / 32).unwrap();
    let info = info_of(
        &theirs,
        chunks,
        their_toc.data().unwrap().decoded_bytes,
        our_info.features,
    );
    let table = ChunkTable::decode(
        stored_table(&theirs, &info),
        &digests,
        &info,
        &TableLimits::default(),
    )
    .unwrap();
    assert_eq!(decode_all(&theirs, &table), contents());
    // Headers agree but for the sizes that another compressor version gives.
    let header =
        |blob: &[u8], toc: &Toc| part(blob, toc.chunk_info_header().unwrap())[..16].to_vec();
    assert_eq!(header(&theirs, &their_toc), header(&ours, &our_toc));
    // The last 512 bytes are a tar header of the same table size: the same bytes.
    assert!(theirs[theirs.len() - 512..] == ours[ours.len() - 512..]);
    let boot = their_toc.bootstrap().unwrap();
    assert_eq!(
        boot.decode(part(&theirs, boot)).unwrap().len() as u64,
        boot.decoded_bytes
    );
    // What nydus digests as the chunk data is the data and its tar header.
    for (blob, toc) in [(&theirs, &their_toc), (&ours, &our_toc)] {
        let data = toc.data().unwrap();
        let with_header = slice(blob, BlobOffset(0), data.stored_bytes + 512);
        assert_eq!(data.digest, Digest::sha256(with_header));
    }
}

proptest! {
    #[test]
    fn mutated_tables_never_panic_and_keep_their_promises(
        at in 0_usize..100_000, flip in 1_u8.., which in 0_u8..3, batches: bool,
    ) {
        let (mut blob, mut info, table) = blob(Compression::None, batches);
        let digests: Vec<u8> = table.chunks.iter().flat_map(|chunk| *chunk.digest.as_bytes()).collect();
        let start = usize::try_from(info.chunk_info.offset.0).unwrap();
        // The table, its header (mostly zeros: aim at the front), or the facts in the bootstrap.
        match which {
            0 => blob[start + at % usize::try_from(info.chunk_info.stored_bytes).unwrap()] ^= flip,
            1 => blob[start + usize::try_from(info.chunk_info.stored_bytes).unwrap() + at % 64] ^= flip,
            _ => {
                info.device_bytes ^= u64::from(flip) << (at % 30);
                info.chunks ^= u32::from(flip) >> (at % 8);
            }
        }
        let limits = TableLimits { chunks_max: 100 };
        if let Ok(read) = ChunkTable::decode(stored_table(&blob, &info), &digests, &info, &limits) {
            let mut end = 0;
            for chunk in &read.chunks {
                let extent = &read.extents[chunk.extent.index()];
                prop_assert!(chunk.offset.0 + u64::from(chunk.bytes) <= u64::from(extent.decoded_bytes));
                prop_assert!(extent.offset.0 + u64::from(extent.stored_bytes) <= info.chunk_info.offset.0);
                prop_assert!(chunk.place.0 >= end && chunk.place.0 % 4096 == 0);
                end = (chunk.place.0 + u64::from(chunk.bytes)).next_multiple_of(4096);
            }
            prop_assert!(end <= info.device_bytes.next_multiple_of(4096));
        }
    }

    #[test]
    fn mutated_tables_of_contents_never_panic(at in 1_usize..2000, flip in 1_u8.., garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (mut blob, _, _) = blob(Compression::Zstd, false);
        let len = blob.len();
        blob[len - at] ^= flip;
        if let Ok(toc) = Toc::decode(&blob[len - 4096..], len as u64, &TocLimits::default()) {
            for entry in toc.entries.iter().filter(|entry| entry.name != "image.blob") {
                drop(entry.decode(part(&blob, entry)));
            }
        }
        prop_assert!(Toc::decode(&garbage, 1 << 30, &TocLimits::default()).is_err());
    }
}

#[test]
fn sizes_beyond_8_gib_fit_into_a_tar_header() {
    for bytes in [0, 1, (8 << 30) - 1, 8 << 30, 1 << 40] {
        let header = super::tar_header::encode("image.blob", bytes);
        assert_eq!(
            super::tar_header::decode(&header),
            Some(("image.blob", bytes))
        );
        let Some(mut list) = need::tool("tar").map(Command::new) else {
            return;
        };
        let mut child = list
            .arg("tvf")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&header).unwrap();
        let out = child.wait_with_output().unwrap().stdout;
        assert!(
            String::from_utf8(out)
                .unwrap()
                .contains(&format!(" {bytes} "))
        );
    }
}
