//! Which containerd there is.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use draught_containerd::connect;
use draught_containerd::version::version_client::VersionClient;

use crate::asynchronous;

/// A version of containerd, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a version of containerd, for example 1.7 or 2.1.4")]
pub(crate) struct ParseVersionError;

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_start_matches('v');
        let mut parts = text.split(['.', '~', '-', '+']);
        let mut number = || parts.next()?.parse().ok();
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(ParseVersionError),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the containerd at that socket says.
pub(crate) async fn ask(socket: &Path) -> anyhow::Result<(Version, String)> {
    let channel = connect(socket).await?;
    let response = VersionClient::new(channel).version(()).await;
    let text = response
        .map_err(|status| anyhow::anyhow!("{}", status.message()))?
        .into_inner()
        .version;
    Ok((text.parse()?, text))
}

/// The containerd that runs, or the one that is installed.
pub(crate) fn find(socket: &Path) -> Option<Version> {
    if let Ok((version, _)) = asynchronous::block_on(ask(socket)) {
        return Some(version);
    }
    let output = Command::new("containerd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (text, expect) in [
            ("1.6.20~ds1", Some((1, 6))),
            ("v2.1.4", Some((2, 1))),
            ("2.3.0-beta.0", Some((2, 3))),
            ("1.7", Some((1, 7))),
            ("containerd", None),
            ("2", None),
            ("github.com/containerd/containerd", None),
        ] {
            let version = text.parse::<Version>().ok();
            assert_eq!(version.map(|it| (it.major, it.minor)), expect, "{text}");
        }
    }
}
