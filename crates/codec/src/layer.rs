//! Layers: whole streams, read once, from the first byte to the last.

use std::fmt;
use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdStream, Operation as _};

/// How many bytes of a layer tell its kind.
pub const DETECT_BYTES: usize = 4;

/// Bytes read from a layer at once. Large enough that the cost of a call vanishes, small enough to
/// stay in the second-level cache together with what it decodes to.
const INPUT_BYTES: usize = 128 << 10;

/// Window bits of gzip: always the largest there are.
const GZIP_WINDOW_BITS: u8 = 15;

/// How a layer's tar archive is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// Not at all.
    Tar,
    /// In gzip members.
    TarGzip,
    /// In zstd frames.
    TarZstd,
}

impl LayerKind {
    /// The kind of a layer that begins with these bytes ([`DETECT_BYTES`] of them, or all it has). The
    /// bytes decide, not the media type, as in every container runtime: layers with the wrong media
    /// type exist.
    #[must_use]
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::TarGzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::TarZstd,
            // A skippable frame.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::TarZstd,
            _ => Self::Tar,
        }
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tar => "tar",
            Self::TarGzip => "tar+gzip",
            Self::TarZstd => "tar+zstd",
        })
    }
}

/// What a layer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    /// Decoded size in bytes. 1 TiB is more than any registry takes for a layer.
    pub decoded_bytes_max: u64,
    /// Decoded bytes for every stored byte, once `decoded_bytes_free` is passed. Real layers of that
    /// size stay below 50.
    pub ratio_max: u64,
    /// Decoded size in bytes up to which any ratio is taken: images hold files of zeros, and up to
    /// here a bomb costs seconds of one processor, and no memory.
    pub decoded_bytes_free: u64,
    /// Base-2 logarithm of the largest zstd window, which has to be kept in memory. 27 (128 MiB) is
    /// the limit of the zstd program itself; its levels up to 19, and all that container tools write,
    /// need 23 (8 MiB).
    pub window_log_max: u32,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            decoded_bytes_max: 1 << 40,
            ratio_max: 256,
            decoded_bytes_free: 16 << 30,
            window_log_max: 27,
        }
    }
}

/// Why a layer can't be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The layer's bytes can't be had.
    #[error("failed to read the layer after {stored_bytes} bytes")]
    Read {
        /// How many bytes were had.
        stored_bytes: u64,
        /// Why no more.
        source: io::Error,
    },
    /// The layer is not what its first bytes promise.
    #[error("the {kind} layer is corrupt, somewhere before its byte {stored_bytes}")]
    Corrupt {
        /// What it promised to be.
        kind: LayerKind,
        /// How many bytes of it had been read.
        stored_bytes: u64,
        /// What the decoder said.
        source: io::Error,
    },
    /// The layer ends in the middle of a member or frame.
    #[error("the {kind} layer is truncated: it ends after {stored_bytes} bytes inside of a {part}")]
    Truncated {
        /// What it promised to be.
        kind: LayerKind,
        /// How many bytes it has.
        stored_bytes: u64,
        /// "member" or "frame".
        part: &'static str,
    },
    /// It decodes to more than is allowed.
    #[error("the {kind} layer decodes to more than {limit_bytes} bytes, which is the limit")]
    TooLarge {
        /// What it is.
        kind: LayerKind,
        /// How much is allowed, in bytes.
        limit_bytes: u64,
    },
    /// It decodes to so many times its size that it can only be meant to do harm.
    #[error(
        "the {kind} layer is a bomb: its first {stored_bytes} bytes decode to {decoded_bytes}, \
         more than {ratio_max} times as many"
    )]
    Bomb {
        /// What it is.
        kind: LayerKind,
        /// Bytes read.
        stored_bytes: u64,
        /// Bytes decoded.
        decoded_bytes: u64,
        /// How many times as many are allowed.
        ratio_max: u64,
    },
}

impl From<LayerError> for io::Error {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Read { source, .. } => source,
            LayerError::Truncated { .. } => Self::new(io::ErrorKind::UnexpectedEof, error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// The stored bytes, through a buffer.
struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// All bytes ever read.
    bytes: u64,
}

impl<R: Read> Input<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            bytes: 0,
        }
    }

    fn available(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads more behind what is available; says how much.
    fn fill(&mut self) -> Result<usize, LayerError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = read_some(&mut self.inner, room, self.bytes)?;
        self.end += read;
        self.bytes = self.bytes.saturating_add(read as u64);
        Ok(read)
    }
}

/// One read that isn't interrupted.
fn read_some<R: Read>(
    inner: &mut R,
    buffer: &mut [u8],
    stored_bytes: u64,
) -> Result<usize, LayerError> {
    loop {
        match inner.read(buffer) {
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(LayerError::Read {
                    stored_bytes,
                    source,
                });
            }
        }
    }
}

enum State {
    Tar,
    /// `open` says that a member has begun and not ended.
    Gzip {
        inflate: Decompress,
        open: bool,
    },
    /// `open` says that a frame has begun and not ended.
    Zstd {
        stream: ZstdStream<'static>,
        open: bool,
    },
}

/// Decodes a layer; read the tar archive from it. Its first bytes decide on its [`LayerKind`].
///
/// All of the layer is read and must be sound, whatever follows the archive's end inside of it: read
/// to the end to know. Memory is bounded by the limits' window.
pub struct LayerDecoder<R> {
    input: Input<R>,
    kind: LayerKind,
    state: State,
    limits: LayerLimits,
    decoded_bytes: u64,
}

impl<R> fmt::Debug for LayerDecoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerDecoder")
            .field("kind", &self.kind)
            .field("stored_bytes", &self.input.bytes)
            .field("decoded_bytes", &self.decoded_bytes)
            .finish_non_exhaustive()
    }
}

impl<R: Read> LayerDecoder<R> {
    /// Reads the first bytes to find out what the layer is.
    ///
    /// # Errors
    /// [`LayerError::Read`].
    pub fn new(inner: R, limits: LayerLimits) -> Result<Self, LayerError> {
        let mut input = Input::new(inner);
        while input.available().len() < DETECT_BYTES && input.fill()? > 0 {}
        let kind = LayerKind::detect(input.available());
        let state = match kind {
            LayerKind::Tar => State::Tar,
            LayerKind::TarGzip => State::Gzip {
                inflate: Decompress::new_gzip(GZIP_WINDOW_BITS),
                open: false,
            },
            LayerKind::TarZstd => State::Zstd {
                stream: zstd_stream(limits.window_log_max).map_err(|source| {
                    LayerError::Corrupt {
                        kind,
                        stored_bytes: 0,
                        source,
                    }
                })?,
                open: false,
            },
        };
        Ok(Self {
            input,
            kind,
            state,
            limits,
            decoded_bytes: 0,
        })
    }

    /// What the layer is.
    pub fn kind(&self) -> LayerKind {
        self.kind
    }

    /// Stored bytes read so far, some of which may still be in a buffer.
    pub fn stored_bytes(&self) -> u64 {
        self.input.bytes
    }

    /// Bytes decoded so far.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes
    }

    /// The reader that the layer came from.
    pub fn into_inner(self) -> R {
        self.input.inner
    }

    /// Decodes some bytes into `out`; 0 at the end of the layer (or if `out` is empty).
    ///
    /// # Errors
    /// See [`LayerError`]. After an error the decoder is of no more use.
    pub fn decode(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        if out.is_empty() {
            return Ok(0);
        }
        let decoded = match self.kind {
            LayerKind::Tar => self.tar(out)?,
            LayerKind::TarGzip | LayerKind::TarZstd => self.unwrapped(out)?,
        };
        self.decoded_bytes = self.decoded_bytes.saturating_add(decoded as u64);
        self.check()?;
        Ok(decoded)
    }

    fn check(&self) -> Result<(), LayerError> {
        let (kind, decoded_bytes, stored_bytes) = (self.kind, self.decoded_bytes, self.input.bytes);
        if decoded_bytes > self.limits.decoded_bytes_max {
            return Err(LayerError::TooLarge {
                kind,
                limit_bytes: self.limits.decoded_bytes_max,
            });
        }
        let allowed = stored_bytes.saturating_mul(self.limits.ratio_max);
        if decoded_bytes > self.limits.decoded_bytes_free && decoded_bytes > allowed {
            return Err(LayerError::Bomb {
                kind,
                stored_bytes,
                decoded_bytes,
                ratio_max: self.limits.ratio_max,
            });
        }
        Ok(())
    }

    fn tar(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        let available = self.input.available();
        if available.is_empty() {
            // Past the buffer: nothing is gained by copying twice.
            let read = read_some(&mut self.input.inner, out, self.input.bytes)?;
            self.input.bytes = self.input.bytes.saturating_add(read as u64);
            return Ok(read);
        }
        let bytes = available.len().min(out.len());
        for (to, from) in out.iter_mut().zip(available) {
            *to = *from;
        }
        self.input.start += bytes;
        Ok(bytes)
    }

    fn unwrapped(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        loop {
            let at_end = self.input.available().is_empty() && self.input.fill()? == 0;
            if at_end && !self.state.open() {
                return Ok(0);
            }
            let (read, written) =
                self.state
                    .step(self.input.available(), out)
                    .map_err(|source| LayerError::Corrupt {
                        kind: self.kind,
                        stored_bytes: self.input.bytes,
                        source,
                    })?;
            self.input.start += read;
            if written > 0 {
                return Ok(written);
            }
            if at_end && self.state.open() {
                return Err(LayerError::Truncated {
                    kind: self.kind,
                    stored_bytes: self.input.bytes,
                    part: self.state.part(),
                });
            }
            if read == 0 && !at_end && self.state.open() && self.input.fill()? == 0 {
                return Err(LayerError::Truncated {
                    kind: self.kind,
                    stored_bytes: self.input.bytes,
                    part: self.state.part(),
                });
            }
        }
    }
}

impl<R: Read> Read for LayerDecoder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.decode(out)?)
    }
}

fn zstd_stream(window_log_max: u32) -> io::Result<ZstdStream<'static>> {
    let mut stream = ZstdStream::new()?;
    stream.set_parameter(DParameter::WindowLogMax(window_log_max))?;
    Ok(stream)
}

impl State {
    fn open(&self) -> bool {
        match self {
            Self::Tar => false,
            Self::Gzip { open, .. } | Self::Zstd { open, .. } => *open,
        }
    }

    fn part(&self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip member",
            Self::Tar | Self::Zstd { .. } => "zstd frame",
        }
    }

    /// One step of the decoder: how much it read and how much it wrote.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> io::Result<(usize, usize)> {
        match self {
            Self::Tar => Ok((0, 0)),
            Self::Gzip { inflate, open } => {
                if !*open {
                    *inflate = Decompress::new_gzip(GZIP_WINDOW_BITS);
                    *open = true;
                }
                let (in_before, out_before) = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(input, out, FlushDecompress::None)
                    .map_err(io::Error::other)?;
                if status == Status::StreamEnd {
                    *open = false;
                }
                let read = inflate.total_in().saturating_sub(in_before);
                let written = inflate.total_out().saturating_sub(out_before);
                Ok((
                    usize::try_from(read).unwrap_or(usize::MAX),
                    usize::try_from(written).unwrap_or(usize::MAX),
                ))
            }
            Self::Zstd { stream, open } => {
                let status = stream.run_on_buffers(input, out)?;
                // What remains is a hint for the next read; 0 says that the frame is complete.
                *open = status.remaining != 0;
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }
}
