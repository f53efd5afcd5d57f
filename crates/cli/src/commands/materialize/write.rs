//! Writing a blob into containerd's content store.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use draught_containerd::content::{
    AbortRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use draught_containerd::tonic::{Code, Status, Streaming};
use draught_oci::Descriptor;
use draught_source::{BlobStream, Class, SourceError};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::containerd::{Containerd, Labels, refused};
use super::labels;

/// Bytes in one message: as many as containerd's own clients send, far below the 16 MiB that it accepts.
const PIECE_BYTES: usize = 1 << 20;
/// Messages under way: each is answered before the next is sent.
const MESSAGES_MAX: usize = 1;
/// How long somebody else who writes the same blob is waited for.
const OTHERS_PATIENCE: Duration = Duration::from_secs(600);
/// How often it is asked whether they are done.
const OTHERS_POLL: Duration = Duration::from_millis(200);

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// So many bytes were fetched; the others had been left by a write that was cut off.
    Here {
        /// Bytes fetched.
        fetched_bytes: u64,
    },
    /// Somebody else wrote it in the meantime.
    BySomebodyElse,
}

/// Why one try came to nothing.
enum Failure {
    /// It is there already.
    Exists,
    /// Somebody else writes it.
    Locked,
    /// containerd found that the whole is not what it should be. `resumed`: some of it was there before.
    Mismatch {
        resumed: bool,
    },
    /// The source gave wrong bytes.
    Corrupt(SourceError),
    /// It gave none, or no more. `empty`: nothing was written so far.
    Source {
        error: SourceError,
        empty: bool,
    },
    Containerd(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::AlreadyExists => Self::Exists,
            // By its words: a connection that is lost has the same code.
            Code::Unavailable if status.message().contains("locked") => Self::Locked,
            _ => Self::Containerd(status),
        }
    }
}

/// One write under way.
struct Session {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
}

impl Session {
    /// Begins a write, or goes on with one that was cut off: gives what it has so far.
    async fn begin(
        containerd: &Containerd,
        first: WriteContentRequest,
    ) -> Result<(Self, u64), Status> {
        let (requests, mut queue) = mpsc::channel(MESSAGES_MAX);
        // It answers nothing, not even the call, before it has the first message.
        let messages = futures_util::stream::once(std::future::ready(first)).chain(
            futures_util::stream::poll_fn(move |context| queue.poll_recv(context)),
        );
        let call = containerd.request(messages);
        let responses = containerd.content().write(call).await?.into_inner();
        let mut session = Self {
            requests,
            responses,
        };
        let answer = session.answer().await?;
        Ok((session, u64::try_from(answer.offset).unwrap_or(0)))
    }

    async fn answer(&mut self) -> Result<WriteContentResponse, Status> {
        let answer = self.responses.message().await?;
        answer.ok_or_else(|| Status::aborted("it ended the write"))
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<(), Status> {
        if self.requests.send(request).await.is_err() {
            // Why, is in its answer.
            self.answer().await?;
            return Err(Status::aborted("it ended the write"));
        }
        self.answer().await.map(drop)
    }
}

/// Makes a blob be there. `open` gives its bytes from a position on, or from the start if it can't: it says which.
/// `progress` is told how far it is.
pub(crate) async fn write(
    containerd: &Containerd,
    descriptor: &Descriptor,
    labels: &Labels,
    open: impl AsyncFn(u64) -> Result<(BlobStream, u64), SourceError>,
    progress: impl Fn(u64),
) -> Result<Written> {
    let digest = descriptor.digest;
    let begun = Instant::now();
    let mut anew = false;
    loop {
        let tried = attempt(containerd, descriptor, labels, anew, &open, &progress).await;
        match tried {
            Ok(fetched_bytes) => return Ok(Written::Here { fetched_bytes }),
            Err(Failure::Exists) => return Ok(Written::BySomebodyElse),
            Err(Failure::Locked) if begun.elapsed() < OTHERS_PATIENCE => {
                tokio::time::sleep(OTHERS_POLL).await;
            }
            Err(Failure::Locked) => bail!(
                "write {digest}: somebody else has been writing it for {} s",
                OTHERS_PATIENCE.as_secs()
            ),
            Err(Failure::Mismatch { resumed }) => {
                give_up(containerd, descriptor).await;
                if !resumed {
                    bail!("write {digest}: containerd received other bytes than were sent");
                }
                tracing::info!(%digest, "what was left of an earlier write is not this blob: all of it is fetched");
                anew = true;
            }
            Err(Failure::Corrupt(error)) => {
                // What came so far may be wrong: nobody is to go on from there.
                give_up(containerd, descriptor).await;
                return Err(anyhow!(error)).with_context(|| format!("fetch {digest}"));
            }
            Err(Failure::Source { error, empty }) => {
                if empty {
                    give_up(containerd, descriptor).await;
                }
                return Err(anyhow!(error)).with_context(|| format!("fetch {digest}"));
            }
            Err(Failure::Containerd(status)) => {
                return Err(refused(&status)).with_context(|| format!("write {digest}"));
            }
        }
    }
}

async fn attempt(
    containerd: &Containerd,
    descriptor: &Descriptor,
    labels: &Labels,
    anew: bool,
    open: &impl AsyncFn(u64) -> Result<(BlobStream, u64), SourceError>,
    progress: &impl Fn(u64),
) -> Result<u64, Failure> {
    let total = i64::try_from(descriptor.size).unwrap_or(i64::MAX);
    let message = |action: WriteAction| WriteContentRequest {
        action: action.into(),
        r#ref: labels::write_name(descriptor),
        total,
        expected: descriptor.digest.to_string(),
        ..WriteContentRequest::default()
    };
    let (mut session, has) = Session::begin(containerd, message(WriteAction::Stat)).await?;
    // More than there should be is of no use.
    let has = if anew || has > descriptor.size {
        0
    } else {
        has
    };
    let mut position = has;
    let mut begin = has;
    if has < descriptor.size {
        let (mut pieces, from) = open(has).await.map_err(|error| Failure::of(error, has))?;
        (position, begin) = (from, from);
        progress(position);
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        loop {
            let piece = pieces.next().await.transpose();
            let piece = piece.map_err(|error| Failure::of(error, position))?;
            let is_end = piece.is_none();
            buffer.extend_from_slice(&piece.unwrap_or_default());
            while buffer.len() >= PIECE_BYTES || is_end && !buffer.is_empty() {
                let data: Bytes = buffer.split_to(buffer.len().min(PIECE_BYTES)).freeze();
                let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
                let write = WriteContentRequest {
                    // From the start: what was there is dropped.
                    offset: i64::try_from(position).unwrap_or(i64::MAX),
                    data,
                    ..message(WriteAction::Write)
                };
                session.send(write).await?;
                position = position.saturating_add(bytes);
                progress(position);
            }
            if is_end {
                break;
            }
        }
    }
    let commit = WriteContentRequest {
        offset: total,
        labels: labels.clone(),
        ..message(WriteAction::Commit)
    };
    match session.send(commit).await {
        Err(status) if status.code() == Code::FailedPrecondition => {
            Err(Failure::Mismatch { resumed: begin > 0 })
        }
        sent => {
            sent?;
            Ok(position.saturating_sub(begin))
        }
    }
}

impl Failure {
    fn of(error: SourceError, position: u64) -> Self {
        match error.class() {
            Class::Corrupt => Self::Corrupt(error),
            _ => Self::Source {
                error,
                empty: position == 0,
            },
        }
    }
}

/// Removes what was written and not committed. What can't be removed is found out at the next commit.
async fn give_up(containerd: &Containerd, descriptor: &Descriptor) {
    let request = containerd.request(AbortRequest {
        r#ref: labels::write_name(descriptor),
    });
    if let Err(status) = containerd.content().abort(request).await {
        let digest = descriptor.digest;
        tracing::debug!(%digest, %status, "what was written is left");
    }
}
