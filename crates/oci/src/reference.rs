//! Image references, with docker's rules for what is left out.

use std::fmt;
use std::str::FromStr;

use draught_digest::Digest;

use crate::descriptor::{DescriptorError, parse_digest};

/// The registry of names without a host.
const DEFAULT_HOST: &str = "docker.io";
/// Where names of one part live on the default registry.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag of names without one.
const DEFAULT_TAG: &str = "latest";
/// Bytes in `host/repository`, as distribution bounds it.
const NAME_BYTES_MAX: usize = 255;
/// Bytes in a tag.
const TAG_BYTES_MAX: usize = 128;

/// `HOST/REPOSITORY[:TAG][@DIGEST]`, with nothing left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What is asked for in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// What a tag stands for now.
    Tag(String),
    /// Exactly this manifest.
    Digest(Digest),
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("image reference is empty")]
    Empty,
    /// It is a URL.
    #[error("image reference {text:?} begins with a scheme: leave {scheme:?} out")]
    Scheme {
        /// What was given.
        text: String,
        /// What has to go.
        scheme: String,
    },
    /// The host is none.
    #[error("{host:?} in {text:?} is not a host or host:port")]
    Host {
        /// What was given.
        text: String,
        /// The host.
        host: String,
    },
    /// The repository has capital letters.
    #[error("repository {repository:?} in {text:?} must be in lower case")]
    UpperCase {
        /// What was given.
        text: String,
        /// The repository.
        repository: String,
    },
    /// The repository is malformed.
    #[error(
        "repository {repository:?} in {text:?} is malformed: parts of a-z and 0-9, joined by '.', '_', '__' or '-', between slashes"
    )]
    Repository {
        /// What was given.
        text: String,
        /// The repository.
        repository: String,
    },
    /// It is too long.
    #[error("image name of {bytes} bytes is over the limit of {NAME_BYTES_MAX}")]
    TooLong {
        /// Its length without tag and digest.
        bytes: usize,
    },
    /// The tag is malformed.
    #[error(
        "tag {tag:?} in {text:?} is malformed: up to {TAG_BYTES_MAX} letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
    )]
    Tag {
        /// What was given.
        text: String,
        /// The tag.
        tag: String,
    },
    /// The digest is malformed or not SHA-256.
    #[error("digest in {text:?} is not usable")]
    Digest {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: DescriptorError,
    },
}

/// Whether it can be a tag.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Whether it can be one part of a repository's name.
fn is_part(part: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    // Between letters and digits stands one of ".", "_", "__", or any number of "-".
    bytes.split(alphanumeric).all(|between| {
        matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
    })
}

/// Whether it can be `host`, `host:port` or `[ipv6]:port`.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, port)) if ip.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Whether it is a port.
fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

impl Reference {
    /// A reference from its parts, checked.
    ///
    /// # Errors
    /// As [`Reference::from_str`].
    pub fn new(host: &str, repository: &str, selector: &Selector) -> Result<Self, ReferenceError> {
        match selector {
            Selector::Tag(tag) => format!("{host}/{repository}:{tag}").parse(),
            Selector::Digest(digest) => format!("{host}/{repository}@{digest}").parse(),
        }
    }

    /// The registry: `docker.io`, `127.0.0.1:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository: `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, when it has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when it has one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What it asks for: the digest if there is one, else the tag, else `latest`.
    #[must_use]
    pub fn selector(&self) -> Selector {
        match self.digest {
            Some(digest) => Selector::Digest(digest),
            None => Selector::Tag(self.tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned())),
        }
    }

    /// `HOST/REPOSITORY`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same repository, asked for a digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            tag: None,
            ..self.clone()
        }
    }

    /// The same repository, asked for a tag.
    ///
    /// # Errors
    /// When it is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag, tag)?;
        Ok(Self {
            digest: None,
            tag: Some(tag.to_owned()),
            ..self.clone()
        })
    }
}

/// Refuses what is no tag.
fn check_tag(tag: &str, text: &str) -> Result<(), ReferenceError> {
    if is_tag(tag) {
        return Ok(());
    }
    Err(ReferenceError::Tag {
        text: text.to_owned(),
        tag: tag.to_owned(),
    })
}

/// Splits host and repository as docker does: the first part is a host if it looks like one.
fn split_host(name: &str) -> (String, String) {
    let looks_like_host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => {
            let host = match first.to_ascii_lowercase().as_str() {
                "index.docker.io" | "registry-1.docker.io" => DEFAULT_HOST.to_owned(),
                host if looks_like_host(host) => host.to_owned(),
                // Only its capitals tell it from a namespace: keep them, or it would be printed as one.
                _ => first.to_owned(),
            };
            let repository = if host == DEFAULT_HOST && !rest.contains('/') {
                format!("{DEFAULT_NAMESPACE}/{rest}")
            } else {
                rest.to_owned()
            };
            (host, repository)
        }
        Some(_) => (DEFAULT_HOST.to_owned(), name.to_owned()),
        None => (
            DEFAULT_HOST.to_owned(),
            format!("{DEFAULT_NAMESPACE}/{name}"),
        ),
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(ReferenceError::Scheme {
                text: text.to_owned(),
                scheme: format!("{scheme}://"),
            });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = parse_digest(digest).map_err(|source| ReferenceError::Digest {
                    text: text.to_owned(),
                    source,
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it belongs to the host's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag, text)?;
        }
        let (host, repository) = split_host(name);
        if !is_host(&host) {
            let text = text.to_owned();
            return Err(ReferenceError::Host { text, host });
        }
        check_repository(&host, &repository, text)?;
        Ok(Self {
            host,
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Refuses what is no repository.
fn check_repository(host: &str, repository: &str, text: &str) -> Result<(), ReferenceError> {
    let text = text.to_owned();
    let bytes = host
        .len()
        .saturating_add(repository.len())
        .saturating_add(1);
    if bytes > NAME_BYTES_MAX {
        return Err(ReferenceError::TooLong { bytes });
    }
    if repository.split('/').all(is_part) {
        return Ok(());
    }
    let lower = repository.to_ascii_lowercase();
    let repository = repository.to_owned();
    Err(if lower.split('/').all(is_part) {
        ReferenceError::UpperCase { text, repository }
    } else {
        ReferenceError::Repository { text, repository }
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Selector {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            return parse_digest(text)
                .map(Self::Digest)
                .map_err(|source| ReferenceError::Digest {
                    text: text.to_owned(),
                    source,
                });
        }
        check_tag(text, text)?;
        Ok(Self::Tag(text.to_owned()))
    }
}
