//! This crate is content digests: SHA-256 and BLAKE3, parsed, printed and computed.
//!
//! Origin: the `algorithm:hex` form is that of the OCI image specification, v1.1, "Digests".
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::str::FromStr;

use sha2::Digest as _;

/// Bytes in a digest, for both algorithms.
pub const DIGEST_BYTES: usize = 32;

/// How a digest was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the digest of OCI.
    Sha256,
    /// BLAKE3 with 32 bytes of output: several times faster, for chunks.
    Blake3,
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::sha256(bytes),
            Self::Blake3 => Digest::blake3(bytes),
        }
    }
}

/// A digest and the algorithm that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; DIGEST_BYTES],
}

impl Digest {
    /// A digest from its raw bytes.
    #[must_use]
    pub const fn new(algorithm: Algorithm, bytes: [u8; DIGEST_BYTES]) -> Self {
        Self { algorithm, bytes }
    }

    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::new(Algorithm::Sha256, sha2::Sha256::digest(bytes).into())
    }

    /// The BLAKE3 of `bytes`.
    #[must_use]
    pub fn blake3(bytes: &[u8]) -> Self {
        Self::new(Algorithm::Blake3, *blake3::hash(bytes).as_bytes())
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.bytes
    }

    /// The 64 hexadecimal digits after the colon.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
            .collect()
    }

    /// Whether `bytes` have this digest.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8]) -> bool {
        self.algorithm.digest(bytes) == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// There is no `algorithm:` in front, or it is one we do not know.
    #[error("{text:?} is not a digest: it must begin with \"sha256:\" or \"blake3:\"")]
    Algorithm {
        /// What was given.
        text: String,
    },
    /// What follows the colon is not 64 lower-case hexadecimal digits.
    #[error("{text:?} is not a digest: 64 lower-case hexadecimal digits must follow the colon")]
    Hex {
        /// What was given.
        text: String,
    },
}

/// Decodes 64 lower-case hexadecimal digits.
fn decode_hex(hex: &str) -> Option<[u8; DIGEST_BYTES]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * DIGEST_BYTES {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; DIGEST_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let (algorithm, hex) = match text.split_once(':') {
            Some(("sha256", hex)) => (Algorithm::Sha256, hex),
            Some(("blake3", hex)) => (Algorithm::Blake3, hex),
            _ => {
                return Err(ParseDigestError::Algorithm {
                    text: text.to_owned(),
                });
            }
        };
        let bytes = decode_hex(hex).ok_or_else(|| ParseDigestError::Hex {
            text: text.to_owned(),
        })?;
        Ok(Self { algorithm, bytes })
    }
}

/// Computes a digest of bytes that come piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Box<sha2::Sha256>),
    Blake3(Box<blake3::Hasher>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher")
            .field(&self.algorithm().name())
            .finish()
    }
}

impl Hasher {
    /// A hasher that has seen no byte.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Box::default()),
            Algorithm::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Blake3(_) => Algorithm::Blake3,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hasher) => Digest::new(Algorithm::Sha256, hasher.finalize().into()),
            State::Blake3(hasher) => Digest::new(Algorithm::Blake3, *hasher.finalize().as_bytes()),
        }
    }
}

/// So that `io::copy` can hash.
impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_SHA256: &str =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_BLAKE3: &str =
        "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn digests_of_nothing_are_the_published_ones() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY_SHA256);
        assert_eq!(Digest::blake3(b"").to_string(), EMPTY_BLAKE3);
    }

    #[test]
    fn text_goes_both_ways() {
        for text in [EMPTY_SHA256, EMPTY_BLAKE3] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest.to_string(), text);
            assert!(digest.verifies(b""));
            assert!(!digest.verifies(b"x"));
        }
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        for algorithm in [Algorithm::Sha256, Algorithm::Blake3] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"dra");
            hasher.update(b"ught");
            assert_eq!(hasher.finish(), algorithm.digest(b"draught"));
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in [
            "",
            "sha256",
            "md5:00",
            "sha256:",
            "sha256:00",
            &EMPTY_SHA256.to_uppercase(),
            &format!("{EMPTY_SHA256}0"),
            "sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken");
        }
    }
}
