//! Blobs given back bit for bit, as far as what the store has of them allows.
//!
//! The store has decoded chunks. What was stored as it is comes back as it is; what was compressed comes back if
//! compressing it again gives the same, which is found out on some of it: a blob that was made with our encoders does,
//! others do not. Gzip never does, for who wrote it is not known. That all of it is right is for the blob's digest to
//! say: whoever puts a blob together must check it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use draught_codec::Encoder;
use draught_digest::Digest;
use draught_fill::{FeedChunk, FeedExtent, FeedMap};
use draught_store::{DeviceKey, DeviceReader, OpenError, Reader};
use draught_tree::Compression;

use crate::layout::Layout;
use crate::record::{DeviceRecord, ImageRecord, RECORD, decode_feed, feed_file};
use crate::state::boot_id;

/// Bytes that must lie next to each other: what takes less time to read from a registry than to ask for twice, before
/// it and after it.
const RUN_BYTES_MIN: u64 = 1 << 20;
/// Bytes that are given at once, about.
const PIECE_BYTES: usize = 1 << 20;
/// Extents on which it is tried out whether they come back as they were.
const SAMPLES: usize = 8;
/// Smaller ones say little about who compressed them.
const SAMPLE_BYTES_MIN: u32 = 4096;
/// Levels of zstd that are tried: those that tools have as their defaults first. The highest are slow to try and used by
/// nobody for images.
const LEVELS: [i32; 19] = [
    3, 1, 9, 19, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18,
];

/// All blobs that a node's store has something of.
#[derive(Debug)]
pub struct KeptBlobs {
    reader: Reader,
    feeds: BTreeMap<Digest, Vec<KeptFeed>>,
}

/// Of an image, what it has of a blob.
#[derive(Debug)]
struct KeptFeed {
    image: String,
    index: usize,
    stored_bytes: u64,
    devices: Vec<DeviceRecord>,
}

/// A blob of which the store has something.
#[derive(Debug)]
pub struct KeptBlob {
    bytes: u64,
    map: FeedMap,
    devices: Vec<Option<DeviceReader>>,
    encoders: Encoders,
    /// Extents that are there, next to each other, and where in the blob.
    runs: Vec<Run>,
    content: Content,
}

#[derive(Debug)]
struct Run {
    stored: Range<u64>,
    extents: Range<usize>,
}

/// What comes next of a blob.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Here(Vec<u8>),
    /// Bytes that the store can't give.
    Elsewhere(Range<u64>),
}

/// Why the store can't be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It is not what it should be.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The filesystem refused.
    #[error("failed to look at the store")]
    Io(#[from] io::Error),
}

impl KeptBlobs {
    /// Looks at the store below a state directory, which a daemon may have open or not; `None` if there is none. What
    /// can't be read of an image is left out.
    ///
    /// # Errors
    /// If the store is of another version, or can't be read.
    pub fn open(layout: &Layout) -> Result<Option<Self>, KeptError> {
        let Some(reader) = Reader::open(&layout.store(), &boot_id()?)? else {
            return Ok(None);
        };
        let mut feeds: BTreeMap<Digest, Vec<KeptFeed>> = BTreeMap::new();
        for image in reader.images()? {
            let record = reader.read_image_file(&image, RECORD);
            let record = match record.and_then(|bytes| ImageRecord::decode(&bytes)) {
                Ok(record) => record,
                Err(error) => {
                    tracing::debug!(%error, image, "an image's record can't be read");
                    continue;
                }
            };
            for (index, blob) in record.blobs.iter().enumerate() {
                let Ok(digest) = blob.digest.parse() else {
                    continue;
                };
                feeds.entry(digest).or_default().push(KeptFeed {
                    image: image.clone(),
                    index,
                    stored_bytes: blob.stored_bytes,
                    devices: record.devices.clone(),
                });
            }
        }
        Ok(Some(Self { reader, feeds }))
    }

    /// Whether the store knows anything of a blob. Cheap.
    #[must_use]
    pub fn has(&self, blob: &Digest) -> bool {
        self.feeds.contains_key(blob)
    }

    /// A blob, if enough of it comes back as it was. Takes a while: some of it is compressed to find out.
    #[must_use]
    pub fn find(&self, blob: &Digest, bytes: u64) -> Option<KeptBlob> {
        let feeds = self.feeds.get(blob)?.iter();
        let found = feeds
            .filter(|feed| feed.stored_bytes == bytes)
            .filter_map(|feed| {
                let opened = self.open_feed(feed).and_then(|mut blob| {
                    let there = blob.present()?;
                    Ok((blob, there))
                });
                match opened {
                    Ok(found) => Some(found),
                    Err(error) => {
                        let image = &feed.image;
                        tracing::debug!(%error, image, "what the store has of a blob can't be read");
                        None
                    }
                }
            });
        // What several images share is mostly the same: one that has the most will do.
        let (mut blob, there) = found.max_by_key(|(_, there)| there.len())?;
        if let Err(error) = blob.find_runs(&there) {
            tracing::debug!(%error, "what the store has of a blob can't be read");
            return None;
        }
        Some(blob).filter(|blob| blob.bytes_kept() > 0)
    }

    fn open_feed(&self, feed: &KeptFeed) -> io::Result<KeptBlob> {
        let map = self
            .reader
            .read_image_file(&feed.image, &feed_file(feed.index));
        let map = decode_feed(&map?)?;
        let device = |record: &DeviceRecord| {
            let key = DeviceKey(record.key()?);
            self.reader.device(&key, record.bytes)
        };
        Ok(KeptBlob {
            bytes: feed.stored_bytes,
            map,
            devices: feed.devices.iter().map(device).collect::<io::Result<_>>()?,
            encoders: Encoders::default(),
            runs: Vec::new(),
            content: Content::default(),
        })
    }
}

impl KeptBlob {
    /// The bytes of the blob that the store can give, as far as it is known before they are read.
    #[must_use]
    pub fn bytes_kept(&self) -> u64 {
        let runs = self.runs.iter();
        runs.map(|run| run.stored.end - run.stored.start).sum()
    }

    /// What comes at a position before the blob's end: bytes, or where they end that the store can't give after all. To
    /// be called with ascending positions.
    #[must_use]
    pub fn piece(&mut self, position: u64) -> Piece {
        let at = self.runs.partition_point(|run| run.stored.end <= position);
        let Some(run) = self.runs.get(at) else {
            return Piece::Elsewhere(position..self.bytes.max(position));
        };
        if position < run.stored.start {
            return Piece::Elsewhere(position..run.stored.start);
        }
        let (mut out, mut next) = (Vec::new(), position);
        for index in run.extents.clone() {
            let Some(extent) = self.map.extents().get(index) else {
                break;
            };
            let stored = extent.stored();
            if stored.end <= next {
                continue;
            }
            let before = out.len();
            let encoded = self
                .content
                .read(&self.map, extent, &mut self.devices)
                .unwrap_or(false)
                && self.encoders.encode(extent, &self.content.bytes, &mut out);
            if !encoded {
                out.truncate(before);
                if out.is_empty() {
                    return Piece::Elsewhere(next..stored.end);
                }
                break;
            }
            // A write that goes on may do so in the middle of one.
            let skip = usize::try_from(next - stored.start).unwrap_or(usize::MAX);
            out.drain(before..before.saturating_add(skip).min(out.len()));
            next = stored.end;
            if out.len() >= PIECE_BYTES {
                break;
            }
        }
        if out.is_empty() {
            return Piece::Elsewhere(position..run.stored.end);
        }
        Piece::Here(out)
    }

    /// Extents that are there, and not in gzip.
    fn present(&mut self) -> io::Result<Vec<usize>> {
        let mut there = Vec::new();
        for (index, extent) in self.map.extents().iter().enumerate() {
            let may_come_back = extent.compression != Compression::Gzip;
            if may_come_back && is_present(&self.map, extent, &mut self.devices)? {
                there.push(index);
            }
        }
        Ok(there)
    }

    fn find_runs(&mut self, there: &[usize]) -> io::Result<()> {
        self.try_out(there)?;
        let mut end = 0;
        for index in there.iter().copied() {
            let Some(extent) = self.map.extents().get(index) else {
                continue;
            };
            let stored = extent.stored();
            if stored.start < end || !self.encoders.has(extent.compression) {
                continue;
            }
            match self.runs.last_mut() {
                Some(run) if run.stored.end == stored.start && run.extents.end == index => {
                    run.stored.end = stored.end;
                    run.extents.end = index + 1;
                }
                _ => self.runs.push(Run {
                    stored: stored.clone(),
                    extents: index..index + 1,
                }),
            }
            end = stored.end;
        }
        self.runs
            .retain(|run| run.stored.end - run.stored.start >= RUN_BYTES_MIN);
        Ok(())
    }

    /// Finds the encoders with which samples come back as they were.
    fn try_out(&mut self, there: &[usize]) -> io::Result<()> {
        for compression in [Compression::Zstd, Compression::Lz4Block] {
            let extents = there.iter().filter_map(|at| self.map.extents().get(*at));
            let mut usable: Vec<&FeedExtent> = extents
                .filter(|extent| extent.compression == compression)
                .filter(|extent| extent.decoded_bytes >= SAMPLE_BYTES_MIN)
                .collect();
            // The small ones are quickly tried.
            usable.sort_by_key(|extent| extent.decoded_bytes);
            let step = usable.len().div_ceil(SAMPLES).max(1);
            let mut samples = Vec::new();
            for extent in usable.into_iter().step_by(step) {
                if self.content.read(&self.map, extent, &mut self.devices)? {
                    samples.push((extent, self.content.bytes.clone()));
                }
            }
            let levels = match compression {
                Compression::Zstd => &LEVELS[..],
                _ => &[0],
            };
            self.encoders.choose(compression, levels, &samples);
        }
        Ok(())
    }
}

/// How extents are encoded again.
#[derive(Debug, Default)]
struct Encoders {
    found: Vec<Encoder>,
}

impl Encoders {
    fn has(&self, compression: Compression) -> bool {
        compression == Compression::None
            || self.found.iter().any(|it| it.compression() == compression)
    }

    /// Takes the first level with which all samples get the size that they had.
    fn choose(
        &mut self,
        compression: Compression,
        levels: &[i32],
        samples: &[(&FeedExtent, Vec<u8>)],
    ) {
        if samples.is_empty() {
            return;
        }
        let mut encoders = levels
            .iter()
            .filter_map(|level| Encoder::new(compression, *level).ok());
        let found = encoders.find_map(|mut encoder| {
            let mut out = Vec::new();
            let mut fits = |(extent, content): &(&FeedExtent, Vec<u8>)| {
                encode_with(&mut encoder, extent, content, &mut out)
            };
            samples.iter().all(&mut fits).then_some(encoder)
        });
        self.found.extend(found);
    }

    /// Appends what an extent was stored as, of its content; says false if that has another size.
    fn encode(&mut self, extent: &FeedExtent, content: &[u8], out: &mut Vec<u8>) -> bool {
        if extent.compression == Compression::None {
            out.extend_from_slice(content);
            return content.len() as u64 == u64::from(extent.stored_bytes);
        }
        let mut encoders = self.found.iter_mut();
        let encoder = encoders.find(|it| it.compression() == extent.compression);
        encoder.is_some_and(|encoder| encode_with(encoder, extent, content, out))
    }
}

fn encode_with(
    encoder: &mut Encoder,
    extent: &FeedExtent,
    content: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let before = out.len();
    let encoded = encoder.encode(content, out);
    let bytes = out.len() - before;
    encoded.is_ok_and(|compression| compression == extent.compression)
        && bytes as u64 == u64::from(extent.stored_bytes)
}

/// The decoded bytes of one extent; the buffers are used again.
#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    chunk: Vec<u8>,
}

impl Content {
    /// Reads and verifies all chunks of an extent; says false if one is not there or not right.
    fn read(
        &mut self,
        map: &FeedMap,
        extent: &FeedExtent,
        devices: &mut [Option<DeviceReader>],
    ) -> io::Result<bool> {
        let Self {
            bytes,
            chunk: buffer,
        } = self;
        bytes.clear();
        on_all_chunks(map, extent, devices, |chunk, device| {
            let range = chunk.place..chunk.place + u64::from(chunk.bytes);
            if !device.read(range, buffer)? || !chunk.digest.verifies(buffer) {
                return Ok(false);
            }
            bytes.extend_from_slice(buffer);
            Ok(true)
        })
    }
}

fn is_present(
    map: &FeedMap,
    extent: &FeedExtent,
    devices: &mut [Option<DeviceReader>],
) -> io::Result<bool> {
    on_all_chunks(map, extent, devices, |chunk, device| {
        device.is_present(chunk.blocks())
    })
}

/// Does something with chunks that make up all of an extent's content, one after the other, until that says false; says
/// whether it was done with all.
fn on_all_chunks(
    map: &FeedMap,
    extent: &FeedExtent,
    devices: &mut [Option<DeviceReader>],
    mut each: impl FnMut(&FeedChunk, &mut DeviceReader) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut end = 0;
    for chunk in map.chunks_of(extent) {
        let offset = u64::from(chunk.offset);
        // The same content may belong in several places.
        if offset < end {
            continue;
        }
        let device = devices.get_mut(usize::from(chunk.device));
        let Some(Some(device)) = device.filter(|_| offset == end) else {
            return Ok(false);
        };
        if !each(chunk, device)? {
            return Ok(false);
        }
        end += u64::from(chunk.bytes);
    }
    Ok(end == u64::from(extent.decoded_bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use draught_store::{BLOCK_BYTES, Device, Store, TableChunk};
    use draught_tree::blocks_of;

    use super::*;
    use crate::record::{BlobRecord, VERSION, encode_feed};

    /// A blob as it is stored, and what of it a store has.
    struct Sample {
        _scratch: tempfile::TempDir,
        layout: Layout,
        _store: Store,
        device: Arc<Device>,
        blob: Vec<u8>,
        map: FeedMap,
    }

    const CHUNK_BYTES: u32 = 100_000;
    /// Bytes before and after the extents, which no chunk has.
    const FRAME_BYTES: usize = 5000;

    impl Sample {
        /// A blob of so many extents, each of one chunk, that `encode` stores.
        fn new(extents: u32, mut encode: impl FnMut(&[u8], &mut Vec<u8>) -> Compression) -> Self {
            let scratch = tempfile::tempdir().unwrap();
            let layout = Layout::new(scratch.path());
            let store = Store::open(&layout.store(), &boot_id().unwrap()).unwrap();
            let mut blob = vec![0xEE; FRAME_BYTES];
            let (mut feed_extents, mut chunks) = (Vec::new(), Vec::new());
            let (mut table, mut contents) = (Vec::new(), Vec::new());
            let mut place = 0;
            for number in 0..extents {
                let content = content(number);
                let start = blob.len();
                let compression = encode(&content, &mut blob);
                feed_extents.push(FeedExtent {
                    blob_offset: start as u64,
                    stored_bytes: u32::try_from(blob.len() - start).unwrap(),
                    decoded_bytes: CHUNK_BYTES,
                    compression,
                    chunks: number..number + 1,
                });
                let digest = Digest::blake3(&content);
                chunks.push(FeedChunk {
                    device: 0,
                    place,
                    bytes: CHUNK_BYTES,
                    offset: 0,
                    digest,
                });
                table.push(TableChunk {
                    place,
                    bytes: CHUNK_BYTES,
                    digest,
                });
                contents.push((place, content));
                place += blocks_of(u64::from(CHUNK_BYTES)) * BLOCK_BYTES;
            }
            blob.extend_from_slice(&[0xFF; FRAME_BYTES]);
            let key = DeviceKey([3; 32]);
            let device = store.create_device(&key, &table).unwrap();
            for (place, content) in &contents {
                device.fill(*place, content).unwrap();
            }
            let map = FeedMap::from_parts(feed_extents, chunks).unwrap();
            let record = ImageRecord {
                version: VERSION,
                digest: String::new(),
                metadata: String::new(),
                devices: vec![DeviceRecord {
                    key: key.hex(),
                    bytes: place,
                }],
                devices_shared: 0,
                blobs: vec![BlobRecord {
                    digest: Digest::sha256(&blob).to_string(),
                    stored_bytes: blob.len() as u64,
                }],
                bytes_total: place,
                bytes_shared: 0,
                created: 0,
            };
            store
                .put_image_file("it", RECORD, &record.encode().unwrap())
                .unwrap();
            store
                .put_image_file("it", &feed_file(0), &encode_feed(&map))
                .unwrap();
            Self {
                _scratch: scratch,
                layout,
                _store: store,
                device,
                blob,
                map,
            }
        }

        fn find(&self) -> Option<KeptBlob> {
            let kept = KeptBlobs::open(&self.layout).unwrap().unwrap();
            let digest = Digest::sha256(&self.blob);
            assert!(kept.has(&digest));
            assert!(kept.find(&digest, 1).is_none(), "of another size");
            kept.find(&digest, self.blob.len() as u64)
        }

        /// Puts it together from a position on; gives how much of it was not there.
        fn assemble(&self, from: usize) -> usize {
            let mut kept = self.find().unwrap();
            let (mut position, mut elsewhere) = (from, 0);
            while position < self.blob.len() {
                match kept.piece(position as u64) {
                    Piece::Here(bytes) => {
                        let right = &self.blob[position..position + bytes.len()];
                        assert!(bytes == right, "at {position}");
                        assert!(!bytes.is_empty());
                        position += bytes.len();
                    }
                    Piece::Elsewhere(range) => {
                        assert_eq!(range.start, position as u64);
                        let end = usize::try_from(range.end).unwrap();
                        assert!(end > position && end <= self.blob.len());
                        elsewhere += end - position;
                        position = end;
                    }
                }
            }
            elsewhere
        }
    }

    /// Bytes that compress to a half, about, different for each number.
    fn content(number: u32) -> Vec<u8> {
        let mut state = u64::from(number) + 1;
        let mut bytes = Vec::new();
        while bytes.len() < CHUNK_BYTES as usize {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(
                format!("{:04x} some words {:03}", state & 0xFFFF, state % 777).as_bytes(),
            );
        }
        bytes.truncate(CHUNK_BYTES as usize);
        bytes
    }

    fn with(
        compression: Compression,
        level: i32,
    ) -> impl FnMut(&[u8], &mut Vec<u8>) -> Compression {
        let mut encoder = Encoder::new(compression, level).unwrap();
        move |content, out| encoder.encode(content, out).unwrap()
    }

    fn plain(content: &[u8], out: &mut Vec<u8>) -> Compression {
        out.extend_from_slice(content);
        Compression::None
    }

    #[test]
    fn what_our_encoders_made_comes_back_bit_for_bit_from_any_position() {
        for (compression, level) in [
            (Compression::None, 0),
            (Compression::Zstd, 3),
            (Compression::Zstd, 11),
            (Compression::Lz4Block, 0),
        ] {
            let sample = Sample::new(60, with(compression, level));
            assert_eq!(
                sample.assemble(0),
                2 * FRAME_BYTES,
                "{compression:?} {level}"
            );
            let within = FRAME_BYTES + 123_456;
            assert_eq!(sample.assemble(within), FRAME_BYTES);
        }
    }

    #[test]
    fn what_others_compressed_is_not_guessed_at() {
        let sample = Sample::new(60, |content, out| {
            // A checksum at the end is none that our encoder writes.
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            std::io::Write::write_all(&mut encoder, content).unwrap();
            out.extend_from_slice(&encoder.finish().unwrap());
            Compression::Zstd
        });
        assert!(sample.find().is_none());
        let sample = Sample::new(60, |content, out| {
            plain(content, out);
            Compression::Gzip
        });
        assert!(sample.find().is_none());
    }

    #[test]
    fn what_is_missing_or_wrong_is_elsewhere() {
        let sample = Sample::new(60, plain);
        // Wrong on the disk: presence says that it is there.
        let wrong = sample.map.chunks()[20].place;
        sample.device.write(wrong + 4096, &[0; 4096]).unwrap();
        assert_eq!(sample.assemble(0), 2 * FRAME_BYTES + CHUNK_BYTES as usize);
        // Missing: what is left on one side is too little to be worth it.
        let hole = sample.map.chunks()[5].place;
        sample
            .device
            .punch(std::slice::from_ref(&(hole..hole + 4096)))
            .unwrap();
        let missing = 2 * FRAME_BYTES + 7 * CHUNK_BYTES as usize;
        assert_eq!(sample.assemble(0), missing);
    }

    #[test]
    fn a_little_is_not_worth_it_and_no_store_is_no_error() {
        let sample = Sample::new(5, plain);
        assert!(sample.find().is_none());
        let scratch = tempfile::tempdir().unwrap();
        let layout = Layout::new(scratch.path());
        assert!(KeptBlobs::open(&layout).unwrap().is_none());
    }
}
