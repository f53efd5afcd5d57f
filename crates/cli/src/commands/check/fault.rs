//! What is wrong with an image.

use std::fmt;
use std::ops::Range;

use draught_digest::Digest;
use serde::Serialize;

/// Faults that are listed: with more than that something is wrong altogether, and the rest is counted.
pub(crate) const FAULTS_MAX: usize = 10_000;

/// One thing that is wrong, in the shape that `--format json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// The blob, configuration or manifest it is in.
    pub(crate) blob: String,
    /// The stored bytes it is in, when they are known: first, and one past the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<(u64, u64)>,
    /// The chunk that does not verify, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk: Option<String>,
    /// A file that has it in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What is wrong.
    pub(crate) what: String,
}

impl Fault {
    /// Something is wrong with a whole blob.
    pub(crate) fn of(blob: &Digest, what: impl Into<String>) -> Self {
        Self {
            blob: blob.to_string(),
            range: None,
            chunk: None,
            path: None,
            what: what.into(),
        }
    }

    /// Something is wrong with a whole blob, with all causes.
    pub(crate) fn from_error(blob: &Digest, error: &anyhow::Error) -> Self {
        Self::of(blob, format!("{error:#}"))
    }

    /// It is in these stored bytes.
    pub(crate) fn at(self, range: &Range<u64>) -> Self {
        Self {
            range: Some((range.start, range.end)),
            ..self
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.blob)?;
        if let Some((start, end)) = self.range {
            write!(f, " bytes {start}..{end}")?;
        }
        if let Some(chunk) = &self.chunk {
            write!(f, " chunk {chunk}")?;
        }
        if let Some(path) = &self.path {
            write!(f, " of {path}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What was looked at and what was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) images: u64,
    pub(crate) blobs: u64,
    /// Stored bytes of these blobs.
    pub(crate) bytes: u64,
    pub(crate) chunks: u64,
    pub(crate) faults: Vec<Fault>,
    /// Faults beyond those listed.
    pub(crate) faults_more: u64,
}

impl Findings {
    /// Takes a fault into account.
    pub(crate) fn add(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        } else {
            self.faults_more += 1;
        }
    }

    /// Takes the outcome of a step into account.
    pub(crate) fn add_error(&mut self, blob: &Digest, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            self.add(Fault::from_error(blob, &error));
        }
    }
}
