//! Why a layer can't be written.

use std::io;

use draught_tar::TarError;

/// Why a layer can't be written. Paths are shown with bytes that aren't UTF-8 replaced. What was written until
/// then is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An option is out of its range.
    #[error("{option} is {value}; allowed is {allowed}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// The archive can't be read.
    #[error("the layer's archive can't be read")]
    Archive(#[source] TarError),
    /// The format has no way to say what the archive says, or its readers would show something else than what
    /// unpackers make of it.
    #[error("{path:?} can't be part of an eStargz layer: {problem}")]
    Inexpressible {
        /// The entry's path.
        path: String,
        /// Why not.
        problem: &'static str,
    },
    /// An entry can't be put into an archive again.
    #[error("an entry of the layer's archive can't be written again")]
    Entry(#[source] draught_tar::WriteError),
    /// The table of contents would be larger than readers take.
    #[error(
        "{what} of the layer's table of contents would be {value} at least, the limit is {limit}"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, as far as it was looked at.
        value: u64,
        /// How large it may be.
        limit: u64,
    },
    /// What holds the archive until it is put in order failed.
    #[error("the archive can't be spooled to put what a start needs first")]
    Spool(#[source] io::Error),
    /// Where the layer goes to failed.
    #[error("writing the layer failed")]
    Out(#[source] io::Error),
}

impl WriteError {
    /// Whether there is nothing wrong with the layer but that this format can't hold it. It can stay as it is:
    /// an image may have layers of both sorts.
    #[must_use]
    pub fn is_limit_of_format(&self) -> bool {
        matches!(self, Self::Inexpressible { .. } | Self::TooLarge { .. })
    }
}
