//! Where a store of blobs is, as people write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;

use crate::http::url_host;

/// Characters of a location, at most: a bucket's name has 63, a key 1024.
const CHARS_MAX: usize = 4096;
/// Characters of a prefix: a key has 1024 bytes, and a digest follows.
const PREFIX_CHARS_MAX: usize = 900;
/// What a bucket's name may have.
const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;

/// Where blobs are kept outside of a registry.
///
/// ```text
/// s3://BUCKET[/PREFIX][?region=REGION][&endpoint=URL][&instance-credentials=true]
/// oss://BUCKET[/PREFIX]?endpoint=URL[&region=REGION][&instance-credentials=true]
/// dir:PATH
/// ```
///
/// The object of a blob is `PREFIX` and the hexadecimal digits of its digest, with nothing between them.
/// A location never holds a secret: one with credentials in it is refused, and the error does not repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendLocation(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Bucket(BucketLocation),
    Directory(PathBuf),
}

/// Which kind of service a bucket is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Service {
    S3,
    Oss,
}

/// A bucket, and what of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BucketLocation {
    pub(super) service: Service,
    pub(super) bucket: String,
    /// May be empty.
    pub(super) prefix: String,
    pub(super) region: Option<String>,
    /// `https://HOST[:PORT]` or `http://HOST[:PORT]`.
    pub(super) endpoint: Option<String>,
    /// Whether the machine may be asked for credentials, over the network.
    pub(super) instance_credentials: bool,
}

/// Why a text names no place for blobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendLocationError {
    /// It begins with nothing known.
    #[error("a place for blobs begins with s3://, oss:// or dir:")]
    Scheme,
    /// It holds what should be secret.
    #[error(
        "credentials don't belong into a location, which is shown and kept: they come from the \
         environment (AWS_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_ID) or the usual files"
    )]
    Credentials,
    /// A part of it can't be right.
    #[error("its {part} can't be used: {why}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A parameter that is not known.
    #[error("{name:?} is no parameter of it; known are region, endpoint and instance-credentials")]
    Parameter {
        /// Its name.
        name: String,
    },
}

fn wrong(part: &'static str, why: &'static str) -> BackendLocationError {
    BackendLocationError::Part { part, why }
}

impl BackendLocation {
    /// A directory.
    #[must_use]
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Directory(path.into()))
    }

    /// The path, if it is a directory: who hands a location to a process that runs elsewhere makes it
    /// absolute first.
    #[must_use]
    pub fn as_directory(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Directory(path) => Some(path),
            Kind::Bucket(_) => None,
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl fmt::Display for BackendLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Directory(path) => write!(f, "dir:{}", path.display()),
            Kind::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl fmt::Display for BucketLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.service {
            Service::S3 => "s3",
            Service::Oss => "oss",
        };
        write!(f, "{scheme}://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let region = self.region.iter().map(|value| ("region", value.as_str()));
        let endpoint = self.endpoint.iter();
        let endpoint = endpoint.map(|value| ("endpoint", value.as_str()));
        let instance = self
            .instance_credentials
            .then_some(("instance-credentials", "true"));
        let all = region.chain(endpoint).chain(instance);
        for (index, (name, value)) in all.enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for BackendLocation {
    type Err = BackendLocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > CHARS_MAX || text.chars().any(char::is_control) {
            return Err(wrong("text", "it is too long, or has control characters"));
        }
        if let Some(path) = text.strip_prefix("dir:") {
            if path.is_empty() {
                return Err(wrong("path", "it is empty"));
            }
            return Ok(Self::directory(path));
        }
        let (service, rest) = if let Some(rest) = text.strip_prefix("s3://") {
            (Service::S3, rest)
        } else if let Some(rest) = text.strip_prefix("oss://") {
            (Service::Oss, rest)
        } else {
            return Err(BackendLocationError::Scheme);
        };
        bucket(service, rest).map(|bucket| Self(Kind::Bucket(bucket)))
    }
}

fn bucket(service: Service, rest: &str) -> Result<BucketLocation, BackendLocationError> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if place.contains('@') {
        return Err(BackendLocationError::Credentials);
    }
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let mut found = BucketLocation {
        service,
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region: None,
        endpoint: None,
        instance_credentials: false,
    };
    check_bucket(bucket)?;
    check_prefix(prefix)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "region" => found.region = Some(region(value)?),
            "endpoint" => found.endpoint = Some(endpoint(value)?),
            "instance-credentials" => {
                found.instance_credentials = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(wrong("instance-credentials", "it is true or false")),
                };
            }
            _ => return Err(parameter(name)),
        }
    }
    if service == Service::Oss && found.endpoint.is_none() {
        return Err(wrong(
            "endpoint",
            "one must be named, such as endpoint=https://oss-cn-hangzhou.aliyuncs.com",
        ));
    }
    Ok(found)
}

/// An unknown parameter. What may be a secret's name is not even answered with that name.
fn parameter(name: &str) -> BackendLocationError {
    let lower = name.to_ascii_lowercase();
    let secret = [
        "key",
        "secret",
        "token",
        "password",
        "signature",
        "credential",
    ];
    if secret.iter().any(|word| lower.contains(word)) {
        return BackendLocationError::Credentials;
    }
    let name = name.chars().take(32).collect();
    BackendLocationError::Parameter { name }
}

fn check_bucket(bucket: &str) -> Result<(), BackendLocationError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !BUCKET_CHARS.contains(&bucket.len())
        || !bucket.chars().all(fits)
        || !edge(bucket.chars().next())
        || !edge(bucket.chars().last())
    {
        let why = "it has 3 to 63 letters, digits, dots and hyphens";
        return Err(wrong("bucket", why));
    }
    Ok(())
}

/// What every tool writes into a URL as it stands: what has to be escaped, some escape differently.
fn check_prefix(prefix: &str) -> Result<(), BackendLocationError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.~/".contains(c);
    if prefix.len() > PREFIX_CHARS_MAX || !prefix.chars().all(fits) {
        let why = "it has up to 900 letters, digits and -_.~/";
        return Err(wrong("prefix", why));
    }
    let inner = prefix.strip_suffix('/').unwrap_or(prefix);
    let strange = |part: &str| part.is_empty() || part == "." || part == "..";
    if !prefix.is_empty() && inner.split('/').any(strange) {
        return Err(wrong("prefix", "a part of it is empty, . or .."));
    }
    Ok(())
}

fn region(value: &str) -> Result<String, BackendLocationError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if value.is_empty() || value.len() > 63 || !value.chars().all(fits) {
        return Err(wrong("region", "it has letters, digits and hyphens"));
    }
    Ok(value.to_owned())
}

/// An endpoint as scheme, host and port; TLS unless it says otherwise.
fn endpoint(value: &str) -> Result<String, BackendLocationError> {
    let whole = if value.contains("://") {
        value.to_owned()
    } else {
        format!("https://{value}")
    };
    let no_url = || wrong("endpoint", "it is no URL of http or https");
    let url = Url::parse(&whole).map_err(|_| no_url())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BackendLocationError::Credentials);
    }
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(no_url());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(
            "endpoint",
            "it has more than a scheme, host and port",
        ));
    }
    Ok(format!("{}://{}", url.scheme(), url_host(&url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_come_back_as_they_were_written() {
        for text in [
            "s3://bucket",
            "s3://bucket/blobs/",
            "s3://my.bucket-1/a/b-",
            "s3://bucket?region=eu-central-1",
            "s3://bucket/p/?region=eu-central-1&endpoint=https://s3.example.com:9000",
            "s3://bucket?endpoint=http://127.0.0.1:9000&instance-credentials=true",
            "oss://bucket/p/?endpoint=https://oss-cn-hangzhou.aliyuncs.com",
            "dir:/srv/blobs",
            "dir:blobs here",
        ] {
            let location: BackendLocation = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
            assert_eq!(location.to_string().parse(), Ok(location));
        }
    }

    #[test]
    fn what_says_the_same_becomes_the_same() {
        for (text, expect) in [
            ("s3://bucket/", "s3://bucket"),
            (
                "s3://bucket?endpoint=s3.example.com",
                "s3://bucket?endpoint=https://s3.example.com",
            ),
            (
                "s3://bucket?endpoint=https://S3.example.com:443/",
                "s3://bucket?endpoint=https://s3.example.com",
            ),
            (
                "s3://bucket?endpoint=http://[::1]:9000&region=x",
                "s3://bucket?region=x&endpoint=http://[::1]:9000",
            ),
            ("s3://bucket?instance-credentials=false", "s3://bucket"),
        ] {
            assert_eq!(text.parse::<BackendLocation>().unwrap().to_string(), expect);
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@bucket/p",
            "s3://bucket/hunter2@p",
            "s3://bucket?access_key_id=hunter2",
            "s3://bucket?X-Amz-Signature=hunter2",
            "s3://bucket?hunter2secret",
            "s3://bucket?endpoint=https://user:hunter2@s3.example.com",
            "oss://bucket?endpoint=https://x.example.com&security_token=hunter2",
        ] {
            let error = text.parse::<BackendLocation>().unwrap_err();
            assert_eq!(error, BackendLocationError::Credentials, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn what_can_mean_two_things_is_refused() {
        for text in [
            "",
            "bucket",
            "file:///x",
            "s3:bucket",
            "s3://",
            "s3://ab",
            "s3://-bucket",
            "s3://bucket//p",
            "s3://bucket/../p",
            "s3://bucket/a b",
            "s3://bucket/a%20b",
            "s3://bucket#x",
            "s3://bucket?colour=blue",
            "s3://bucket?endpoint=ftp://x",
            "s3://bucket?endpoint=https://x/y",
            "s3://bucket?region=a/b",
            "oss://bucket",
            "dir:",
            "dir:a\nb",
        ] {
            assert!(text.parse::<BackendLocation>().is_err(), "{text:?}");
        }
    }
}
