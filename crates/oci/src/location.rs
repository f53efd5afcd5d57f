//! Where an image is, as a person writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::reference::{Reference, ReferenceError, Selector};

/// Where an image is or goes.
///
/// `HOST/REPO:TAG`, `HOST/REPO@sha256:…`, `oci:DIR[:TAG]`, `oci:DIR@sha256:…`,
/// `docker-archive:FILE[:NAME[:TAG]]`, `dir:ROOTFS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// In a registry.
    Registry(Reference),
    /// In a directory that is an OCI layout.
    OciLayout {
        /// The directory.
        dir: PathBuf,
        /// Which of its images; may be left out when it has one.
        selector: Option<Selector>,
    },
    /// In a file as `docker save` writes it.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// Which of its images; may be left out when it has one.
        reference: Option<Reference>,
    },
    /// A directory that is a root file system.
    Directory {
        /// The directory.
        rootfs: PathBuf,
    },
}

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// Nothing stands after the prefix.
    #[error("{text:?} names no {what}")]
    Empty {
        /// What was given.
        text: String,
        /// What is missing.
        what: &'static str,
    },
    /// The tag, digest or name of an image is malformed.
    #[error(
        "{text:?} is not an image in a registry, nor one of oci:DIR[:TAG], docker-archive:FILE, dir:ROOTFS"
    )]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// A prefix that other tools have and we do not.
    #[error(
        "{prefix:?} in {text:?} is not supported: use HOST/REPO:TAG, oci:DIR[:TAG], docker-archive:FILE or dir:ROOTFS"
    )]
    Prefix {
        /// What was given.
        text: String,
        /// The prefix.
        prefix: String,
    },
}

/// Prefixes of other tools, which would else be taken for an image with that name.
const PREFIXES_UNSUPPORTED: [&str; 3] = ["containers-storage", "docker-daemon", "oci-archive"];

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let wrong = |source| LocationError::Reference {
            text: text.to_owned(),
            source,
        };
        let path = |path: &str, what| {
            if path.is_empty() {
                let text = text.to_owned();
                return Err(LocationError::Empty { text, what });
            }
            Ok(PathBuf::from(path))
        };
        match text.split_once(':') {
            Some(("oci", rest)) => {
                let (dir, selector) = split_layout(rest).map_err(wrong)?;
                Ok(Self::OciLayout {
                    dir: path(dir, "directory")?,
                    selector,
                })
            }
            Some(("docker-archive", rest)) => {
                let (file, name) = match rest.split_once(':') {
                    Some((file, name)) => (file, Some(name)),
                    None => (rest, None),
                };
                Ok(Self::DockerArchive {
                    file: path(file, "file")?,
                    reference: name.map(str::parse).transpose().map_err(wrong)?,
                })
            }
            Some(("dir", rest)) => Ok(Self::Directory {
                rootfs: path(rest, "directory")?,
            }),
            Some((prefix, _)) if PREFIXES_UNSUPPORTED.contains(&prefix) => {
                let (text, prefix) = (text.to_owned(), format!("{prefix}:"));
                Err(LocationError::Prefix { text, prefix })
            }
            _ => text.parse().map(Self::Registry).map_err(wrong),
        }
    }
}

/// Splits a layout's directory from the image in it.
fn split_layout(rest: &str) -> Result<(&str, Option<Selector>), ReferenceError> {
    if let Some((dir, digest)) = rest.rsplit_once("@sha256:") {
        return Ok((dir, Some(format!("sha256:{digest}").parse()?)));
    }
    match rest.rsplit_once(':') {
        // A colon before a slash is part of the directory's name.
        Some((dir, tag)) if !tag.contains('/') => Ok((dir, Some(tag.parse()?))),
        _ => Ok((rest, None)),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, selector } => {
                write!(f, "oci:{}", dir.display())?;
                match selector {
                    None => Ok(()),
                    Some(Selector::Tag(tag)) => write!(f, ":{tag}"),
                    Some(Selector::Digest(digest)) => write!(f, "@{digest}"),
                }
            }
            Self::DockerArchive { file, reference } => {
                write!(f, "docker-archive:{}", file.display())?;
                match reference {
                    None => Ok(()),
                    Some(reference) => write!(f, ":{reference}"),
                }
            }
            Self::Directory { rootfs } => write!(f, "dir:{}", rootfs.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_reads_and_prints() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (text, printed) in [
            ("debian", "docker.io/library/debian"),
            ("oci", "docker.io/library/oci"),
            ("docker:27", "docker.io/library/docker:27"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("oci:some/dir", "oci:some/dir"),
            ("oci:/some/dir:tag", "oci:/some/dir:tag"),
            ("oci:/with:colon/dir:tag", "oci:/with:colon/dir:tag"),
            ("oci:/with:colon/dir", "oci:/with:colon/dir"),
            ("docker-archive:/a.tar", "docker-archive:/a.tar"),
            (
                "docker-archive:a.tar:x:1",
                "docker-archive:a.tar:docker.io/library/x:1",
            ),
            ("dir:/", "dir:/"),
            ("dir:/a:b", "dir:/a:b"),
        ] {
            assert_eq!(location(text).to_string(), printed, "{text}");
        }
        let text = format!("oci:dir@{digest}");
        assert_eq!(location(&text).to_string(), text);
    }

    #[test]
    fn what_is_no_location_is_refused() {
        for text in [
            "",
            "oci:",
            "oci::tag",
            "oci:dir:",
            "oci:dir:.tag",
            "oci:dir@sha256:00",
            "dir:",
            "docker-archive:",
            "docker-archive:file:UPPER",
            "docker://debian",
            "https://example.com/a",
            "docker-daemon:debian:latest",
            "containers-storage:debian:1",
            "oci-archive:/file.tar",
        ] {
            let parsed = text.parse::<Location>();
            assert!(parsed.is_err(), "{text:?} was taken as {parsed:?}");
        }
    }
}
