use std::io::{self, Read, Write};

use draught_digest::{Algorithm, Digest};
use draught_tree::Compression;
use proptest::prelude::*;

use crate::*;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

/// Bytes that compress, but not away.
fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [.., high] = state.to_le_bytes();
        out.extend_from_slice(&[high & 0x1f, b'a']);
    }
    out.truncate(bytes);
    out
}

/// Gives a byte at a time, as the network might.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = out.len().min(1);
        self.0.read(&mut out[..bytes])
    }
}

fn decode(layer: impl Read, limits: LayerLimits) -> Result<Vec<u8>, LayerError> {
    let mut decoder = LayerDecoder::new(layer, limits)?;
    let mut out = Vec::new();
    let mut buffer = vec![0; 70_000];
    loop {
        let read = decoder.decode(&mut buffer)?;
        if read == 0 {
            assert_eq!(decoder.decoded_bytes(), out.len() as u64);
            return Ok(out);
        }
        out.extend_from_slice(&buffer[..read]);
    }
}

fn error(layer: &[u8], limits: LayerLimits) -> String {
    decode(layer, limits).unwrap_err().to_string()
}

#[test]
fn layers_of_every_kind_decode_to_their_bytes() {
    let data = sample(1_000_000);
    let (first, second) = data.split_at(300_000);
    let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    skippable.extend(zstd(&data));
    for (kind, layer) in [
        (LayerKind::Tar, data.clone()),
        (LayerKind::TarGzip, gzip(&data)),
        (
            LayerKind::TarGzip,
            [gzip(first), gzip(b""), gzip(second)].concat(),
        ),
        (LayerKind::TarZstd, zstd(&data)),
        (
            LayerKind::TarZstd,
            [zstd(first), zstd(b""), zstd(second)].concat(),
        ),
        (LayerKind::TarZstd, skippable),
    ] {
        assert_eq!(LayerKind::detect(&layer), kind);
        assert!(
            decode(&*layer, LayerLimits::default()).unwrap() == data,
            "{kind}"
        );
        assert!(
            decode(Drip(&layer), LayerLimits::default()).unwrap() == data,
            "{kind} dripping"
        );
    }
}

#[test]
fn an_empty_layer_is_an_empty_archive() {
    for layer in [vec![], gzip(b""), zstd(b"")] {
        assert_eq!(decode(&*layer, LayerLimits::default()).unwrap(), b"");
    }
}

#[test]
fn layers_cut_off_anywhere_are_refused() {
    let data = sample(10_000);
    for layer in [gzip(&data), zstd(&data)] {
        for end in 4..layer.len() {
            let text = error(&layer[..end], LayerLimits::default());
            assert!(text.contains("truncated"), "{end}: {text}");
        }
    }
}

#[test]
fn what_follows_a_member_must_be_one_too() {
    let text = error(
        &[gzip(b"x"), b"garbage".to_vec()].concat(),
        LayerLimits::default(),
    );
    assert!(text.contains("corrupt"), "{text}");
    let text = error(
        &[zstd(b"x"), b"garbage".to_vec()].concat(),
        LayerLimits::default(),
    );
    assert!(text.contains("corrupt"), "{text}");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let limits = LayerLimits {
        ratio_max: 100,
        decoded_bytes_free: 1 << 20,
        decoded_bytes_max: 3 << 20,
        ..LayerLimits::default()
    };
    let zeros = vec![0; 2 << 20];
    assert!(error(&gzip(&zeros), limits).contains("bomb"));
    assert!(error(&zstd(&zeros), limits).contains("bomb"));
    assert!(decode(&*zeros, limits).is_ok());
    assert!(decode(&*gzip(&zeros[..1 << 20]), limits).is_ok());
    assert!(error(&sample(4 << 20), limits).contains("more than 3145728 bytes"));
}

#[test]
fn a_window_beyond_the_limit_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&sample(20 << 20)).unwrap();
    let layer = encoder.finish().unwrap();
    let limits = LayerLimits {
        window_log_max: 23,
        ..LayerLimits::default()
    };
    assert!(error(&layer, limits).contains("corrupt"));
    assert!(decode(&*layer, LayerLimits::default()).is_ok());
}

#[test]
fn errors_of_the_source_come_through() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }
    }
    let layer = gzip(&sample(10_000));
    let mut decoder =
        LayerDecoder::new((&layer[..100]).chain(Broken), LayerLimits::default()).unwrap();
    let error = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn hashing_counts_what_passes() {
    let mut reader = HashingReader::new(&b"draught"[..], Algorithm::Sha256);
    let mut writer = HashingWriter::new(Vec::new(), Algorithm::Blake3);
    io::copy(&mut reader, &mut writer).unwrap();
    let (digest, bytes, _) = reader.finish();
    assert_eq!((digest, bytes), (Digest::sha256(b"draught"), 7));
    let (digest, bytes, out) = writer.finish();
    assert_eq!((digest, bytes), (Digest::blake3(b"draught"), 7));
    assert_eq!(out, b"draught");
}

fn encode(compression: Compression, data: &[u8]) -> (Compression, Vec<u8>) {
    let mut out = b"before".to_vec();
    let mut encoder = Encoder::new(compression, LEVEL_DEFAULT).unwrap();
    // Once for warmth: a used context must not change the bytes.
    encoder.encode(&sample(5000), &mut Vec::new()).unwrap();
    let used = encoder.encode(data, &mut out).unwrap();
    assert_eq!(&out[..6], b"before");
    (used, out.split_off(6))
}

#[test]
fn extents_decode_to_what_was_encoded() {
    for data in [sample(1), sample(100), sample(4096), sample(1 << 20)] {
        for compression in [Compression::None, Compression::Lz4Block, Compression::Zstd] {
            let (used, stored) = encode(compression, &data);
            assert!(stored.len() <= data.len());
            let mut out = b"old".to_vec();
            let bytes = u32::try_from(data.len()).unwrap();
            Decoder::new()
                .decode(used, &stored, bytes, &mut out)
                .unwrap();
            assert!(out == data);
        }
        let stored = [gzip(&data[..data.len() / 2]), gzip(&data[data.len() / 2..])].concat();
        let bytes = u32::try_from(data.len()).unwrap();
        let mut out = Vec::new();
        Decoder::new()
            .decode(Compression::Gzip, &stored, bytes, &mut out)
            .unwrap();
        assert!(out == data);
    }
}

#[test]
fn an_extent_that_does_not_shrink_is_stored_as_it_is() {
    let noise: Vec<u8> = (0..64_u32)
        .flat_map(|n| *Digest::blake3(&n.to_le_bytes()).as_bytes())
        .collect();
    for compression in [Compression::Lz4Block, Compression::Zstd] {
        assert_eq!(
            encode(compression, &noise),
            (Compression::None, noise.clone())
        );
    }
    assert!(Encoder::new(Compression::Gzip, 1).is_err());
}

#[test]
fn an_extent_of_another_length_is_refused() {
    let data = sample(5000);
    for compression in [
        Compression::None,
        Compression::Lz4Block,
        Compression::Zstd,
        Compression::Gzip,
    ] {
        let stored = match compression {
            Compression::Gzip => gzip(&data),
            other => encode(other, &data).1,
        };
        for bytes in [0, 4999, 5001, u32::from(u16::MAX)] {
            if compression == Compression::Gzip && bytes < 5000 {
                continue;
            }
            let mut out = Vec::with_capacity(100_000);
            let outcome = Decoder::new().decode(compression, &stored, bytes, &mut out);
            assert!(outcome.is_err(), "{compression:?} {bytes}");
            assert!(out.is_empty());
        }
    }
}

#[test]
fn of_a_gzip_member_the_beginning_can_be_had() {
    let data = sample(100_000);
    let stored = gzip(&data);
    let mut out = Vec::new();
    for bytes in [0, 1, 99_999] {
        Decoder::new()
            .decode(Compression::Gzip, &stored, bytes, &mut out)
            .unwrap();
        assert!(out == data[..bytes as usize]);
        assert!(out.capacity() <= 100_000);
    }
    // Not all of the member need be there, but what is wanted must be.
    let half = &stored[..stored.len() / 2];
    let decode =
        |bytes, out: &mut Vec<u8>| Decoder::new().decode(Compression::Gzip, half, bytes, out);
    decode(10_000, &mut out).unwrap();
    assert!(out == data[..10_000]);
    assert!(decode(100_000, &mut out).is_err());
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn mutated_extents_never_panic_and_never_exceed_their_length(
        at in 0_usize..2000, flip in 1_u8..,
        which in 0_usize..4, cut in 0_usize..2000,
    ) {
        let compression = [Compression::None, Compression::Lz4Block, Compression::Zstd, Compression::Gzip][which];
        let data = sample(3000);
        let mut stored = match compression {
            Compression::Gzip => gzip(&data),
            other => encode(other, &data).1,
        };
        let len = stored.len();
        stored[at % len] ^= flip;
        stored.truncate(len - cut % 3);
        let mut out = Vec::new();
        let outcome = Decoder::new().decode(compression, &stored, 3000, &mut out);
        prop_assert_eq!(out.len(), if outcome.is_ok() { 3000 } else { 0 });
    }

    #[test]
    fn mutated_layers_never_panic_and_end(at in 0_usize..4000, flip in 1_u8.., is_zstd: bool) {
        let data = sample(20_000);
        let mut layer = if is_zstd { zstd(&data) } else { gzip(&data) };
        let len = layer.len();
        layer[at % len] ^= flip;
        let limits = LayerLimits { decoded_bytes_max: 1 << 20, ..LayerLimits::default() };
        if let Ok(out) = decode(&*layer, limits) {
            prop_assert!(out.len() <= 1 << 20);
        }
    }
}
