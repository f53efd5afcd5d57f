//! Platforms, normalised and matched as containerd does.

use std::fmt;
use std::str::FromStr;

use crate::wire::{WirePlatform, nonempty, nonempty_text};

/// What an image runs on. Always normalised: `aarch64` is `arm64`, `arm64/v8` is `arm64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: String,
    os_version: String,
    os_features: Vec<String>,
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// It has no part or more than three.
    #[error(
        "{text:?} is not a platform: write os/architecture or os/architecture/variant, such as linux/arm64"
    )]
    Parts {
        /// What was given.
        text: String,
    },
    /// A part is empty or has characters that none has.
    #[error(
        "{part:?} in platform {text:?} has characters other than letters, digits, '-', '_' and '.'"
    )]
    Characters {
        /// What was given.
        text: String,
        /// The part.
        part: String,
    },
    /// A single word that is neither an architecture nor an operating system that we know.
    #[error("{text:?} is not a platform that we know: write os/architecture, such as linux/{text}")]
    Unknown {
        /// What was given.
        text: String,
    },
}

/// Systems that may be written alone.
const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasi"];
/// Architectures that may be written alone.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

/// Go's names for architecture and variant.
fn normalise_architecture(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match architecture.as_str() {
        "i386" => ("386", ""),
        "x86_64" | "x86-64" | "amd64" => ("amd64", if variant == "v1" { "" } else { &variant }),
        "aarch64" | "arm64" => match variant.as_str() {
            "8" | "v8" | "v8.0" => ("arm64", ""),
            "9" | "9.0" | "v9.0" => ("arm64", "v9"),
            _ => ("arm64", variant.as_str()),
        },
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        "arm" => match variant.as_str() {
            "" | "7" => ("arm", "v7"),
            "5" => ("arm", "v5"),
            "6" => ("arm", "v6"),
            "8" => ("arm", "v8"),
            _ => ("arm", variant.as_str()),
        },
        _ => (architecture.as_str(), variant.as_str()),
    };
    (architecture.to_owned(), variant.to_owned())
}

/// Go's names for systems.
fn normalise_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    }
}

impl Platform {
    /// A platform; an empty variant stands for the common one.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalise_architecture(architecture, variant);
        Self {
            os: normalise_os(os),
            architecture,
            variant,
            os_version: String::new(),
            os_features: Vec::new(),
        }
    }

    /// The platform that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// The same, able to use these features of the operating system.
    #[must_use]
    pub fn with_os_features(mut self, features: Vec<String>) -> Self {
        self.os_features = features;
        self
    }

    /// The same with a version of the operating system (Windows alone cares).
    #[must_use]
    pub fn with_os_version(mut self, version: impl Into<String>) -> Self {
        self.os_version = version.into();
        self
    }

    /// Such as `linux`.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.os
    }

    /// Such as `amd64`.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Such as `v7`; empty for the common one.
    #[must_use]
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// Empty when not told.
    #[must_use]
    pub fn os_version(&self) -> &str {
        &self.os_version
    }

    /// What the operating system has to know to use the image.
    #[must_use]
    pub fn os_features(&self) -> &[String] {
        &self.os_features
    }

    /// How well `image` runs on this platform: 0 is exactly right, more is worse, `None` is not at all.
    ///
    /// As containerd orders them: `arm64` runs 32-bit arm from v8 down to v5, `arm` runs lower variants,
    /// `amd64/v3` runs v2 and v1, `amd64` runs `386`. An image that needs a feature of the operating
    /// system that this platform does not name does not run.
    #[must_use]
    pub fn rank(&self, image: &Self) -> Option<u32> {
        let features_known = image
            .os_features
            .iter()
            .all(|feature| self.os_features.contains(feature));
        if self.os != image.os || !features_known {
            return None;
        }
        if !self.os_version.is_empty()
            && !image.os_version.is_empty()
            && self.os_version != image.os_version
        {
            return None;
        }
        self.runnable()
            .iter()
            .position(|(architecture, variant)| {
                *architecture == image.architecture && *variant == image.variant
            })
            .and_then(|position| u32::try_from(position).ok())
    }

    /// Architectures and variants that run here, best first.
    fn runnable(&self) -> Vec<(String, String)> {
        let number = |variant: &str| {
            variant
                .strip_prefix('v')
                .and_then(|n| n.parse::<u32>().ok())
        };
        let mut all = vec![(self.architecture.clone(), self.variant.clone())];
        let mut lower = |architecture: &str, from: u32, to: u32| {
            for version in (to..=from.min(16)).rev() {
                all.push((architecture.to_owned(), format!("v{version}")));
            }
        };
        match (self.architecture.as_str(), number(&self.variant)) {
            ("amd64", version) => {
                if let Some(version) = version {
                    lower("amd64", version.saturating_sub(1), 2);
                    all.push(("amd64".to_owned(), String::new()));
                }
                all.push(("386".to_owned(), String::new()));
            }
            ("arm64", version) => {
                if version.is_some() {
                    all.push(("arm64".to_owned(), String::new()));
                }
                for version in (5..=8).rev() {
                    all.push(("arm".to_owned(), format!("v{version}")));
                }
            }
            ("arm", Some(version)) => lower("arm", version.saturating_sub(1), 5),
            _ => {}
        }
        all
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if part.is_empty() || !part.bytes().all(legal) {
                return Err(PlatformError::Characters {
                    text: text.to_owned(),
                    part: (*part).to_owned(),
                });
            }
        }
        let host = Self::host();
        match parts.as_slice() {
            [word] => {
                let os = normalise_os(word);
                let (architecture, variant) = normalise_architecture(word, "");
                if SYSTEMS.contains(&os.as_str()) {
                    Ok(Self::new(&os, host.architecture(), host.variant()))
                } else if ARCHITECTURES.contains(&architecture.as_str()) {
                    Ok(Self::new(host.os(), &architecture, &variant))
                } else {
                    Err(PlatformError::Unknown {
                        text: text.to_owned(),
                    })
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(PlatformError::Parts {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl From<WirePlatform> for Platform {
    fn from(wire: WirePlatform) -> Self {
        Self::new(
            &wire.os,
            &wire.architecture,
            wire.variant.as_deref().unwrap_or_default(),
        )
        .with_os_version(wire.os_version.unwrap_or_default())
        .with_os_features(wire.os_features.unwrap_or_default())
    }
}

impl From<&Platform> for WirePlatform {
    fn from(platform: &Platform) -> Self {
        // Builders write arm64 with its variant, and readers that compare literally expect it.
        let variant = match (platform.architecture.as_str(), platform.variant.as_str()) {
            ("arm64", "") => Some("v8".to_owned()),
            (_, variant) => nonempty_text(variant),
        };
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: nonempty_text(&platform.os_version),
            os_features: nonempty(&platform.os_features),
            variant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised_as_containerd_does() {
        for (text, expect) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/5", "linux/arm/v5"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(platform(text).to_string(), expect, "{text}");
        }
    }

    #[test]
    fn one_word_takes_the_rest_from_this_machine() {
        assert_eq!(platform("riscv64"), Platform::new("linux", "riscv64", ""));
        assert_eq!(platform("linux"), Platform::host());
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "/", "linux/", "linux/amd64/v3/x", "linux/am d64", "vax"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn better_variants_rank_before_worse_ones() {
        for (wanted, image, expect) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm/v7", Some(2)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "linux/arm64", None),
        ] {
            assert_eq!(
                platform(wanted).rank(&platform(image)),
                expect,
                "{wanted} on {image}"
            );
        }
    }

    #[test]
    fn an_image_that_needs_an_unknown_feature_does_not_match() {
        let special = platform("linux/amd64").with_os_features(vec!["special.v1".to_owned()]);
        assert_eq!(platform("linux/amd64").rank(&special), None);
        assert_eq!(special.rank(&special), Some(0));
        assert_eq!(special.rank(&platform("linux/amd64")), Some(0));
    }
}
