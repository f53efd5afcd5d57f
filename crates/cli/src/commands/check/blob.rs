//! One blob: every extent decoded, every chunk verified, the whole digested on the way.

use std::io::{self, Read};
use std::ops::Range;

use anyhow::{Context as _, Result};
use draught_codec::Decoder;
use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_tree::{BlobId, Chunk, ChunkId, ChunkMap, Extent};

use super::fault::{FAULTS_MAX, Fault};

/// What a blob holds, in the order of its bytes.
#[derive(Debug)]
pub(crate) struct Contents {
    digest: Digest,
    extents: Vec<(Extent, Vec<(ChunkId, Chunk)>)>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Faults of the blob as a whole.
    pub(crate) faults: Vec<Fault>,
    /// Faults with the chunk that has them.
    pub(crate) wrong: Vec<(ChunkId, Fault)>,
}

impl Contents {
    /// The extents and chunks of a blob of the map.
    pub(crate) fn of(map: &ChunkMap, id: BlobId, layer: &Descriptor) -> Self {
        // Where in `extents` an extent of the map has come to lie.
        let mut places = vec![None; map.extents.len()];
        let mut extents = Vec::new();
        for (extent, place) in map.extents.iter().zip(&mut places) {
            if extent.blob == id {
                *place = Some(extents.len());
                extents.push((extent.clone(), Vec::new()));
            }
        }
        for (chunk_id, chunk) in (0..).map(ChunkId).zip(&map.chunks) {
            let place = places.get(chunk.extent.index()).copied().flatten();
            if let Some((_, chunks)) = place.and_then(|place| extents.get_mut(place)) {
                chunks.push((chunk_id, chunk.clone()));
            }
        }
        extents.sort_by_key(|(extent, _)| extent.offset);
        Self {
            digest: layer.digest,
            extents,
        }
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> u64 {
        let chunks = self.extents.iter().map(|(_, chunks)| chunks.len());
        u64::try_from(chunks.sum::<usize>()).unwrap_or(u64::MAX)
    }
}

/// Decodes and verifies, with contexts and buffers that are used again.
struct Verifier {
    decoder: Decoder,
    decoded: Vec<u8>,
    digest: Digest,
    verdict: Verdict,
}

/// Reads a blob to its end and verifies everything in it. `reread` is for ranges that the stream
/// could not give, because it broke off or because extents overlap.
pub(crate) fn verify(
    contents: Contents,
    mut blob: impl Read,
    reread: &dyn Fn(Range<u64>) -> Result<Vec<u8>>,
) -> Verdict {
    let mut verifier = Verifier {
        decoder: Decoder::new(),
        decoded: Vec::new(),
        digest: contents.digest,
        verdict: Verdict::default(),
    };
    let mut stored = Vec::new();
    let mut later = Vec::new();
    let mut position = 0;
    let mut broken = None;
    for (extent, chunks) in contents.extents {
        let range = range(&extent);
        if broken.is_some() || range.start < position {
            later.push((extent, chunks));
            continue;
        }
        let got = skip(&mut blob, range.start - position)
            .and_then(|()| take(&mut blob, extent.stored_bytes, &mut stored));
        match got {
            Ok(()) => {
                position = range.end;
                verifier.extent(&extent, &chunks, &stored);
            }
            Err(error) => {
                broken = Some(error);
                later.push((extent, chunks));
            }
        }
    }
    if broken.is_none() {
        // To the end: only then are digest and size of the whole verified.
        broken = io::copy(&mut blob, &mut io::sink()).err();
    }
    if let Some(error) = broken {
        let error = anyhow::Error::from(error);
        verifier
            .verdict
            .faults
            .push(Fault::from_error(&contents.digest, &error));
    }
    for (extent, chunks) in later {
        let range = range(&extent);
        match reread(range.clone()).context("read them") {
            Ok(stored) => verifier.extent(&extent, &chunks, &stored),
            Err(error) => {
                let fault = Fault::from_error(&contents.digest, &error).at(&range);
                verifier.verdict.faults.push(fault);
                if verifier.verdict.faults.len() > FAULTS_MAX {
                    break;
                }
            }
        }
    }
    verifier.verdict
}

fn range(extent: &Extent) -> Range<u64> {
    let start = extent.offset.0;
    start..start.saturating_add(extent.stored_bytes.into())
}

fn skip(blob: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut blob.by_ref().take(bytes), &mut io::sink())?;
    if skipped < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn take(blob: &mut impl Read, bytes: u32, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    let taken = blob.by_ref().take(bytes.into()).read_to_end(into)?;
    if u32::try_from(taken) != Ok(bytes) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

impl Verifier {
    fn extent(&mut self, extent: &Extent, chunks: &[(ChunkId, Chunk)], stored: &[u8]) {
        let decoded = self.decoder.decode(
            extent.compression,
            stored,
            extent.decoded_bytes,
            &mut self.decoded,
        );
        for (id, chunk) in chunks {
            let what = match &decoded {
                Err(error) => Some(error.to_string()),
                Ok(())
                    if piece(&self.decoded, chunk).is_some_and(|it| chunk.digest.verifies(it)) =>
                {
                    None
                }
                Ok(()) => Some("its bytes have another digest".to_owned()),
            };
            if let Some(what) = what {
                let fault = Fault {
                    chunk: Some(chunk.digest.to_string()),
                    ..Fault::of(&self.digest, what).at(&range(extent))
                };
                self.verdict.wrong.push((*id, fault));
            }
        }
    }
}

fn piece<'a>(decoded: &'a [u8], chunk: &Chunk) -> Option<&'a [u8]> {
    let start = usize::try_from(chunk.offset.0).ok()?;
    let bytes = usize::try_from(chunk.bytes).ok()?;
    decoded.get(start..start.checked_add(bytes)?)
}
