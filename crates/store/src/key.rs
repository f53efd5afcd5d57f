//! The name of a device.

use std::fmt;
use std::str::FromStr;

use draught_digest::{Algorithm, Digest};

/// The name of a device: whoever places chunks chooses it, for example from a blob's digest.
///
/// Files are named by it, so that one key always means the same content in the same places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub [u8; 32]);

impl DeviceKey {
    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        Digest::new(Algorithm::Blake3, self.0).hex()
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// A text is not a device key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a device key: it must be 64 lower-case hexadecimal digits")]
#[non_exhaustive]
pub struct ParseDeviceKeyError {
    /// What was given.
    pub text: String,
}

impl FromStr for DeviceKey {
    type Err = ParseDeviceKeyError;

    fn from_str(text: &str) -> Result<Self, ParseDeviceKeyError> {
        format!("blake3:{text}")
            .parse::<Digest>()
            .map(|digest| Self(*digest.as_bytes()))
            .map_err(|_| ParseDeviceKeyError {
                text: text.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_from_its_digits() {
        let key = DeviceKey([0xA7; 32]);
        assert_eq!(key.hex(), "a7".repeat(32));
        assert_eq!(format!("{key:?}"), key.hex());
        assert_eq!(key.hex().parse(), Ok(key));
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "a7", &"A7".repeat(32), &"a7".repeat(33), "../escape"] {
            assert!(text.parse::<DeviceKey>().is_err(), "{text}");
        }
    }
}
