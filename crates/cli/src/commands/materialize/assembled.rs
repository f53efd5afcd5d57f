//! Blobs put together: what this node's store can give back as it was, and the rest from where the image is from.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use draught_node::{KeptBlob, KeptBlobs, Piece};
use draught_oci::Descriptor;
use draught_source::{BlobStream, Repository, Source as _, SourceError};
use futures_util::StreamExt as _;

/// Bytes that are asked of a registry at once, at most.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

struct State {
    kept: KeptBlob,
    repository: Repository,
    descriptor: Descriptor,
    position: u64,
    /// What the store is known not to have.
    elsewhere: Range<u64>,
    local_bytes: Arc<AtomicU64>,
}

/// What the store has of a blob, if that is worth it.
pub(crate) async fn find(kept: &Arc<KeptBlobs>, descriptor: &Descriptor) -> Option<KeptBlob> {
    let (kept, digest, size) = (Arc::clone(kept), descriptor.digest, descriptor.size);
    let found = tokio::task::spawn_blocking(move || kept.find(&digest, size)).await;
    let found = found.ok().flatten()?;
    tracing::debug!(%digest, size, kept = found.bytes_kept(), "part of it is in this node's store");
    Some(found)
}

/// A blob from a position on. `local_bytes` is told how much of it came from the store. From its start its digest is
/// checked, else whoever has what comes before must do that.
pub(crate) fn stream(
    kept: KeptBlob,
    repository: Repository,
    descriptor: &Descriptor,
    from: u64,
    local_bytes: Arc<AtomicU64>,
) -> BlobStream {
    // Of an earlier try, of which nothing counts.
    if from == 0 {
        local_bytes.store(0, Ordering::Relaxed);
    }
    let state = State {
        kept,
        repository,
        descriptor: descriptor.clone(),
        position: from,
        elsewhere: 0..0,
        local_bytes,
    };
    let pieces = futures_util::stream::try_unfold(state, next).boxed();
    let rest = descriptor.size.saturating_sub(from);
    let stream = BlobStream::new(descriptor.digest, rest, pieces);
    if from == 0 {
        stream
    } else {
        stream.unverified()
    }
}

async fn next(mut state: State) -> Result<Option<(Bytes, State)>, SourceError> {
    while state.position < state.descriptor.size {
        if state.elsewhere.contains(&state.position) {
            let end = state.elsewhere.end.min(state.descriptor.size);
            let range = state.position..end.min(state.position + REQUEST_BYTES_MAX);
            state.position = range.end;
            let digest = state.descriptor.digest;
            let bytes = state.repository.read_range(&digest, range).await?;
            return Ok(Some((bytes, state)));
        }
        let (piece, back) = piece(state).await?;
        state = back;
        match piece {
            Piece::Here(bytes) => {
                let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                state.position = state.position.saturating_add(len);
                state.local_bytes.fetch_add(len, Ordering::Relaxed);
                return Ok(Some((bytes.into(), state)));
            }
            Piece::Elsewhere(range) => state.elsewhere = range,
        }
    }
    Ok(None)
}

/// Reading and compressing, where nobody else waits for it.
async fn piece(mut state: State) -> Result<(Piece, State), SourceError> {
    let worked = tokio::task::spawn_blocking(move || {
        let piece = state.kept.piece(state.position);
        (piece, state)
    });
    worked
        .await
        .map_err(|error| std::io::Error::other(error).into())
}
