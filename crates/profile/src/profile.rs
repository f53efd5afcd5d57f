//! The profile, its text, and what a text may ask for.

use draught_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::path;

/// The version that is written and read.
const VERSION: u32 = 1;

/// What a profile may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text. A touch takes some 100; what a node records is at most 20,000 touches.
    pub bytes_max: usize,
    /// Touches.
    pub touches_max: usize,
    /// Bytes of a path: what Linux allows.
    pub path_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 8 << 20,
            touches_max: 100_000,
            path_bytes_max: 4096,
        }
    }
}

/// Part of a file that was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The file's path, without a leading slash.
    pub path: Vec<u8>,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Milliseconds since the image was mounted.
    pub at_ms: u64,
}

/// What a start touches, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The image that was started, as it was asked for.
    pub reference: String,
    /// The digest of its manifest.
    pub image: Option<Digest>,
    /// The touches in order.
    pub touches: Vec<Touch>,
}

/// Why a text is not a profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is too long.
    #[error("the profile has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It has too many touches.
    #[error("the profile has more than {limit} touches")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// It does not begin as one.
    #[error(
        "the first line is not that of a profile: it must have \"draught_profile\" and \"reference\""
    )]
    Head(#[source] serde_json::Error),
    /// It is of a version that is not known here.
    #[error("the profile has version {version}, this program knows {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// A line is not what it should be.
    #[error(
        "line {line} of the profile is no touch: it must have \"path\", \"offset\", \"bytes\" and \"at_ms\""
    )]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A path is none.
    #[error("line {line} of the profile has a path that no file has: {path:?}")]
    Path {
        /// Counted from 1.
        line: usize,
        /// The path.
        path: String,
    },
    /// The image's digest is none.
    #[error("the profile's image is no digest")]
    Image(#[source] draught_digest::ParseDigestError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    draught_profile: u32,
    reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    offset: u64,
    bytes: u64,
    at_ms: u64,
}

impl Profile {
    /// Whether a text begins as a profile does; whether all of it is one is for [`Self::parse`] to say.
    #[must_use]
    pub fn is_likely(text: &[u8]) -> bool {
        text.trim_ascii_start().starts_with(b"{")
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`ParseError`], which names the line.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        if text.len() > limits.bytes_max {
            return Err(ParseError::TooLong {
                bytes: text.len(),
                limit: limits.bytes_max,
            });
        }
        let mut lines = text.split(|byte| *byte == b'\n').enumerate();
        let (_, first) = lines.next().unwrap_or_default();
        let head: Head = serde_json::from_slice(first).map_err(ParseError::Head)?;
        if head.draught_profile != VERSION {
            return Err(ParseError::Version {
                version: head.draught_profile,
            });
        }
        let image = head.image.map(|image| image.parse()).transpose();
        let mut profile = Self {
            reference: head.reference,
            image: image.map_err(ParseError::Image)?,
            touches: Vec::new(),
        };
        for (index, text) in lines {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line = index + 1;
            let fields: Line =
                serde_json::from_slice(text).map_err(|source| ParseError::Line { line, source })?;
            let path = path::decode(&fields.path);
            let path = path.filter(|path| path.len() <= limits.path_bytes_max);
            let path = path.ok_or(ParseError::Path {
                line,
                path: fields.path,
            })?;
            if profile.touches.len() >= limits.touches_max {
                return Err(ParseError::TooMany {
                    limit: limits.touches_max,
                });
            }
            profile.touches.push(Touch {
                path,
                offset: fields.offset,
                bytes: fields.bytes,
                at_ms: fields.at_ms,
            });
        }
        Ok(profile)
    }

    /// The profile as text.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            draught_profile: VERSION,
            reference: self.reference.clone(),
            image: self.image.map(|image| image.to_string()),
        };
        let lines = self.touches.iter().map(|touch| Line {
            path: path::encode(&touch.path),
            offset: touch.offset,
            bytes: touch.bytes,
            at_ms: touch.at_ms,
        });
        // Strings and numbers are always JSON.
        let mut text = serde_json::to_vec(&head).unwrap_or_default();
        text.push(b'\n');
        for line in lines {
            text.extend(serde_json::to_vec(&line).unwrap_or_default());
            text.push(b'\n');
        }
        text
    }

    /// Joins touches that follow each other in one file.
    pub fn compact(&mut self) {
        self.touches.dedup_by(|next, last| {
            let follows =
                next.path == last.path && last.offset.checked_add(last.bytes) == Some(next.offset);
            if follows {
                last.bytes = last.bytes.saturating_add(next.bytes);
            }
            follows
        });
    }
}
