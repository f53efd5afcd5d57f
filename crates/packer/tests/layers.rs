//! Layers in, blobs and a tree out.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::num::NonZeroUsize;

use draught_codec::{Decoder, LayerLimits};
use draught_digest::{Algorithm, Digest};
use draught_packer::{ImagePacker, LayerInput, PackLayerError, PackOptions};
use draught_rafs::blob::{ChunkTable, TOC_TAIL_BYTES, TableLimits, Toc, TocLimits};
use draught_tree::{Compression, Entry, EntryKind, Kind, Meta, Tree};

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().into(),
        meta: Meta {
            mode: 0o644,
            ..Meta::default()
        },
        kind,
    }
}

/// Bytes that differ for every seed and compress somewhat.
fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&(state & 0x3f3f_3f3f_0f0f_0f0f).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = draught_tar::Writer::new(Vec::new());
    for (path, data) in files {
        let bytes = data.len() as u64;
        let chunks = Box::default();
        writer
            .entry(&entry(path, EntryKind::File { bytes, chunks }))
            .unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn options() -> PackOptions {
    PackOptions {
        chunk_bytes: 64 << 10,
        ..PackOptions::default()
    }
}

type Packed = (Tree, Vec<Vec<u8>>);

fn pack(options: &PackOptions, layers: &[&[u8]]) -> Result<Packed, PackLayerError> {
    let mut packer = ImagePacker::new(options.clone()).unwrap();
    let mut bytes = Vec::new();
    for layer in layers {
        let (_, blob) = packer.add_layer(LayerInput::new(*layer), &())?;
        if let Some(blob) = blob {
            let info = blob.info.clone();
            let mut content = Vec::new();
            let digest = blob.content.digest();
            let mut file = blob.content.into_file().unwrap();
            file.read_to_end(&mut content).unwrap();
            assert_eq!(Digest::sha256(&content), digest);
            assert_eq!(info.digest, Some(digest));
            bytes.push(content);
        }
    }
    Ok((packer.finish().unwrap().tree, bytes))
}

/// Content of every file, decoded from the blobs by the tree's own map.
fn unpack(tree: &Tree, blobs: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let mut decoder = Decoder::new();
    let mut files = BTreeMap::new();
    for (path, id) in tree.walk() {
        let Kind::File { bytes, chunks } = &tree.node(id).kind else {
            continue;
        };
        let mut data = Vec::new();
        for chunk in chunks {
            let chunk = tree.map.chunk(*chunk).unwrap();
            let extent = tree.map.extent(chunk.extent).unwrap();
            let at = usize::try_from(extent.offset.0).unwrap();
            let stored =
                &blobs[extent.blob.index()][at..][..usize::try_from(extent.stored_bytes).unwrap()];
            let mut out = Vec::new();
            decoder
                .decode(extent.compression, stored, extent.decoded_bytes, &mut out)
                .unwrap();
            let at = usize::try_from(chunk.offset.0).unwrap();
            let piece = &out[at..][..usize::try_from(chunk.bytes).unwrap()];
            assert!(chunk.digest.verifies(piece));
            data.extend_from_slice(piece);
        }
        assert_eq!(data.len() as u64, *bytes);
        files.insert(String::from_utf8(path).unwrap(), data);
    }
    files
}

/// Files of all sizes that the cutting knows: none, small, around a chunk, many chunks.
fn sizes() -> Vec<(String, Vec<u8>)> {
    let mut sizes = vec![0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_000];
    sizes.extend((0..300).map(|n| n * 37 % 20_000));
    sizes
        .into_iter()
        .enumerate()
        .map(|(n, bytes)| (format!("f{n:03}"), content(n as u64, bytes)))
        .collect()
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    files
        .iter()
        .map(|(path, data)| (path.as_str(), data.clone()))
        .collect()
}

#[test]
fn the_same_input_gives_the_same_bytes_on_any_number_of_threads() {
    let files = sizes();
    let first = gzip(&archive(&borrowed(&files)));
    let second = archive(&[
        ("f000", content(7777, 300_000)),
        ("new/f", content(8888, 10)),
    ]);
    for compression in [Compression::None, Compression::Lz4Block, Compression::Zstd] {
        for batch_bytes in [0, 32 << 10] {
            let mut outputs = Vec::new();
            for threads in [1, 2, 7] {
                let options = PackOptions {
                    compression,
                    batch_bytes,
                    threads: NonZeroUsize::new(threads).unwrap(),
                    ..options()
                };
                let (tree, blobs) = pack(&options, &[&first, &second]).unwrap();
                outputs.push((tree, blobs));
            }
            assert!(
                outputs[0] == outputs[1] && outputs[1] == outputs[2],
                "{compression:?} {batch_bytes}"
            );
            let (tree, blobs) = &outputs[0];
            let mut expect: BTreeMap<String, Vec<u8>> = files
                .iter()
                .map(|(path, data)| (format!("/{path}"), data.clone()))
                .collect();
            expect.insert("/f000".to_owned(), content(7777, 300_000));
            expect.insert("/new/f".to_owned(), content(8888, 10));
            assert!(unpack(tree, blobs) == expect);
            check_tables(&options(), blobs, tree, batch_bytes > 0);
        }
    }
}

/// The blobs' own tables say the same as the tree's map.
fn check_tables(options: &PackOptions, blobs: &[Vec<u8>], tree: &Tree, batches: bool) {
    let mut packer_map = draught_tree::ChunkMap::default();
    for (index, blob) in blobs.iter().enumerate() {
        let at = blob
            .len()
            .saturating_sub(usize::try_from(TOC_TAIL_BYTES).unwrap());
        let toc = Toc::decode(&blob[at..], blob.len() as u64, &TocLimits::default()).unwrap();
        let part = |offset: u64, bytes: u64| {
            &blob[usize::try_from(offset).unwrap()..][..usize::try_from(bytes).unwrap()]
        };
        let table = toc.chunk_info().unwrap();
        let digests = toc.chunk_digests().unwrap();
        let digests = digests
            .decode(part(digests.offset.0, digests.stored_bytes))
            .unwrap();
        let mut features = draught_rafs::blob::BlobFeatures::default();
        if batches {
            features = draught_rafs::blob::BlobFeatures::BATCH
                .union(draught_rafs::blob::BlobFeatures::CHUNK_INFO_V2);
        }
        let extent = tree
            .map
            .extents
            .iter()
            .find(|e| e.compression != Compression::None);
        let info = draught_rafs::blob::BlobInfo {
            digest: None,
            features,
            compression: extent.map_or(Compression::None, |extent| extent.compression),
            digester: options.digester,
            chunk_bytes_max: options.chunk_bytes,
            chunks: u32::try_from(digests.len() / 32).unwrap(),
            stored_bytes: blob.len() as u64,
            device_bytes: toc.data().unwrap().decoded_bytes,
            chunk_info: draught_rafs::blob::ChunkInfoRange {
                offset: table.offset,
                stored_bytes: table.stored_bytes,
                decoded_bytes: table.decoded_bytes,
                compression: table.compression,
            },
            toc: None,
        };
        let stored = part(table.offset.0, table.stored_bytes + 4096);
        let table = ChunkTable::decode(stored, &digests, &info, &TableLimits::default()).unwrap();
        let id = draught_tree::BlobId(u32::try_from(index).unwrap());
        table.append_to(&mut packer_map, id).unwrap();
    }
    assert!(packer_map.chunks == tree.map.chunks);
    assert!(packer_map.extents == tree.map.extents);
}

#[test]
fn content_that_is_there_is_not_stored_again() {
    let big = content(1, 300_000);
    let first = archive(&[("a", big.clone()), ("b", big.clone())]);
    let again = archive(&[("c", big.clone())]);
    let both = archive(&[("d", [big.clone(), content(2, 100)].concat())]);
    let (tree, blobs) = pack(&options(), &[&first, &again, &both]).unwrap();
    // The second layer brings nothing, the third its last chunk alone.
    assert_eq!(blobs.len(), 2);
    assert_eq!(tree.map.blobs.len(), 2);
    assert_eq!(tree.map.chunks.len(), 5 + 1);
    assert_eq!(unpack(&tree, &blobs)["/c"], big);
    assert_eq!(tree.layers(), 3);
}

#[test]
fn a_blob_whose_content_is_all_hidden_is_no_part_of_the_image() {
    let mut packer = ImagePacker::new(options()).unwrap();
    let mut blobs = Vec::new();
    for layer in [
        archive(&[("keep", content(1, 10))]),
        archive(&[
            ("hide/me", content(2, 200_000)),
            ("hide/too", content(1, 10)),
        ]),
        archive(&[(".wh.hide", vec![]), ("last", content(3, 100_000))]),
    ] {
        let (_, blob) = packer.add_layer(LayerInput::new(&*layer), &()).unwrap();
        let mut content = Vec::new();
        let mut file = blob.unwrap().content.into_file().unwrap();
        file.read_to_end(&mut content).unwrap();
        blobs.push(content);
    }
    let image = packer.finish().unwrap();
    blobs.remove(1);
    let digests: Vec<_> = blobs.iter().map(|blob| Digest::sha256(blob)).collect();
    assert_eq!(
        image
            .blobs
            .iter()
            .map(|blob| blob.digest)
            .collect::<Vec<_>>(),
        digests
    );
    let files = unpack(&image.tree, &blobs);
    assert_eq!(files.len(), 2);
    assert_eq!(files["/keep"], content(1, 10));
    assert_eq!(files["/last"], content(3, 100_000));
}

#[test]
fn layers_without_content_give_no_blob() {
    let empty = archive(&[]);
    let names = archive(&[("a", vec![]), (".wh.b", vec![])]);
    let (tree, blobs) = pack(&options(), &[&empty, &names, b""]).unwrap();
    assert!(blobs.is_empty());
    assert!(tree.lookup(b"a").is_some());
}

fn described(layer: &[u8], archive: &[u8]) -> LayerInput<Cursor<Vec<u8>>> {
    LayerInput {
        reader: Cursor::new(layer.to_vec()),
        digest: Some(Digest::sha256(layer)),
        stored_bytes: Some(layer.len() as u64),
        diff_id: Some(Digest::sha256(archive)),
        is_estargz: false,
    }
}

fn refusal(options: PackOptions, input: LayerInput<Cursor<Vec<u8>>>) -> PackLayerError {
    let mut packer = ImagePacker::new(options).unwrap();
    packer.add_layer(input, &()).unwrap_err()
}

#[test]
fn a_layer_that_is_not_what_its_descriptor_says_is_refused() {
    let archive = archive(&[("a", content(1, 200_000)), ("b", content(2, 5))]);
    for layer in [archive.clone(), gzip(&archive)] {
        let mut packer = ImagePacker::new(options()).unwrap();
        let (report, _) = packer.add_layer(described(&layer, &archive), &()).unwrap();
        assert_eq!(report.digest, Some(Digest::sha256(&layer)));
        assert_eq!(report.diff_id, Some(Digest::sha256(&archive)));
        assert_eq!(report.stored_bytes, layer.len() as u64);

        let mut wrong = described(&layer, &archive);
        wrong.digest = Some(Digest::sha256(b"other"));
        assert!(matches!(
            refusal(options(), wrong),
            PackLayerError::Digest { .. }
        ));

        let mut wrong = described(&layer, &archive);
        wrong.diff_id = Some(Digest::sha256(b"other"));
        assert!(matches!(
            refusal(options(), wrong),
            PackLayerError::DiffId { .. }
        ));

        for (stored_bytes, expect) in [
            (layer.len() as u64 + 1, "only"),
            (layer.len() as u64 - 1, "at least"),
        ] {
            let mut wrong = described(&layer, &archive);
            wrong.stored_bytes = Some(stored_bytes);
            let error = refusal(options(), wrong);
            assert!(error.to_string().contains(expect), "{error}");
        }

        // Bytes cut off or flipped: what is said is what is wrong with the stream.
        for end in [0, 1, 100, 1000, layer.len() / 2, layer.len() - 1] {
            let mut wrong = described(&layer, &archive);
            wrong.reader.get_mut().truncate(end);
            assert!(
                matches!(refusal(options(), wrong), PackLayerError::Size { .. }),
                "{end}"
            );
        }
        for at in [0, 3, 150, 600, layer.len() / 2, layer.len() - 1] {
            let mut wrong = described(&layer, &archive);
            wrong.reader.get_mut()[at] ^= 0x10;
            let error = refusal(options(), wrong);
            assert!(
                matches!(
                    error,
                    PackLayerError::Digest { .. } | PackLayerError::Decode { .. }
                ),
                "{at}: {error}"
            );
        }
    }
}

#[test]
fn without_a_descriptor_the_archive_speaks_for_itself() {
    let archive = archive(&[("a", content(1, 200_000))]);
    let cut = gzip(&archive[..100_000]);
    let error = refusal(options(), LayerInput::new(Cursor::new(cut)));
    assert!(matches!(error, PackLayerError::Tar { .. }), "{error}");
    let mut cut = gzip(&archive);
    cut.truncate(1000);
    let error = refusal(options(), LayerInput::new(Cursor::new(cut)));
    assert!(matches!(error, PackLayerError::Decode { .. }), "{error}");
}

#[test]
fn a_bomb_ends_in_an_error_and_not_in_memory() {
    let bomb = gzip(&archive(&[("zeros", vec![0; 8 << 20])]));
    let options = PackOptions {
        layer_limits: LayerLimits {
            ratio_max: 100,
            decoded_bytes_free: 1 << 20,
            ..LayerLimits::default()
        },
        ..options()
    };
    let error = refusal(options, LayerInput::new(Cursor::new(bomb)));
    let PackLayerError::Decode { source } = error else {
        panic!("{error}");
    };
    assert!(source.to_string().contains("bomb"), "{source}");
}

#[test]
fn a_hostile_archive_is_refused_by_name() {
    for path in ["../../etc/passwd", "a/../../b"] {
        let archive = archive(&[(path, b"x".to_vec())]);
        let error = refusal(options(), LayerInput::new(Cursor::new(archive)));
        let PackLayerError::Apply { source } = error else {
            panic!("{error}");
        };
        assert!(source.to_string().contains(path), "{source}");
    }
}

#[test]
fn a_source_that_fails_hangs_nobody() {
    struct Broken(u8);
    impl Read for Broken {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0 = self.0.wrapping_add(1);
            if self.0 > 100 {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            out.fill(b'x');
            Ok(out.len())
        }
    }
    let mut archive = archive(&[("big", content(1, 600_000))]);
    archive.truncate(200_000);
    let mut packer = ImagePacker::new(options()).unwrap();
    let error = packer
        .add_layer(LayerInput::new(Cursor::new(archive).chain(Broken(90))), &())
        .unwrap_err();
    let PackLayerError::Decode { source } = error else {
        panic!("{error}");
    };
    assert!(
        source.to_string().contains("failed to read the layer"),
        "{source}"
    );
}

#[test]
fn a_spool_directory_that_cannot_be_written_is_named() {
    let options = PackOptions {
        spool_dir: "/proc/self".into(),
        ..options()
    };
    let archive = archive(&[("a", content(1, 5_000_000))]);
    let error = refusal(options, LayerInput::new(Cursor::new(archive)));
    assert!(matches!(error, PackLayerError::Spool { .. }), "{error}");
}

#[test]
fn options_that_cannot_be_are_refused() {
    for options in [
        PackOptions {
            chunk_bytes: 5000,
            ..options()
        },
        PackOptions {
            chunk_bytes: 2048,
            ..options()
        },
        PackOptions {
            chunk_bytes: 32 << 20,
            ..options()
        },
        PackOptions {
            batch_bytes: 100,
            ..options()
        },
        PackOptions {
            batch_bytes: 128 << 10,
            ..options()
        },
        PackOptions {
            chunk_bytes: 16 << 20,
            batch_bytes: 4096,
            ..options()
        },
        PackOptions {
            compression: Compression::Gzip,
            ..options()
        },
        PackOptions {
            level: 0,
            ..options()
        },
    ] {
        assert!(ImagePacker::new(options).is_err());
    }
}

#[test]
fn chunks_can_be_digested_with_sha256() {
    let options = PackOptions {
        digester: Algorithm::Sha256,
        ..options()
    };
    let (tree, blobs) = pack(&options, &[&archive(&[("a", content(3, 100_000))])]).unwrap();
    assert_eq!(unpack(&tree, &blobs)["/a"], content(3, 100_000));
    assert_eq!(tree.map.chunks[0].digest.algorithm(), Algorithm::Sha256);
}
