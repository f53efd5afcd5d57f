//! Byte ranges: of a blob that is read, of an upload that is written.

use std::ops::Range;

/// What a `Range` header asks of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    /// It begins behind the end.
    Nothing,
}

/// Reads a `Range` header for a body of so many bytes.
///
/// What is not understood, and what names several ranges, is ignored, as HTTP allows.
pub(super) fn wanted(header: Option<&str>, bytes: u64) -> Wanted {
    header
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .and_then(|spec| parse(spec.trim(), bytes))
        .unwrap_or(Wanted::Whole)
}

fn parse(spec: &str, bytes: u64) -> Option<Wanted> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(match suffix.min(bytes) {
            0 => Wanted::Nothing,
            suffix => Wanted::Part(bytes - suffix..bytes),
        });
    }
    let first = number(first)?;
    let end = match last {
        "" => bytes,
        last => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(bytes)
        }
    };
    Some(match first < bytes {
        true => Wanted::Part(first..end),
        false => Wanted::Nothing,
    })
}

/// Reads the `Content-Range` of a chunk: `first-last`, as registries write it.
pub(super) fn chunk(header: &str) -> Option<Range<u64>> {
    let text = header.trim();
    // Some clients write the unit, and the total that HTTP wants.
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |text| text.trim_start_matches([' ', '=']));
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

/// Decimal digits only: no sign, no blank.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_body() {
        let check = |header: &str, bytes: u64, expect: Wanted| {
            assert_eq!(wanted(Some(header), bytes), expect, "{header} of {bytes}");
        };
        check("bytes=0-0", 10, Wanted::Part(0..1));
        check("bytes=2-5", 10, Wanted::Part(2..6));
        check("bytes=2-", 10, Wanted::Part(2..10));
        check("bytes=9-100", 10, Wanted::Part(9..10));
        check("bytes=-3", 10, Wanted::Part(7..10));
        check("bytes=-30", 10, Wanted::Part(0..10));
        check("bytes=0-18446744073709551615", 10, Wanted::Part(0..10));
        check("bytes=10-", 10, Wanted::Nothing);
        check("bytes=-0", 10, Wanted::Nothing);
        check("bytes=0-", 0, Wanted::Nothing);
        check("bytes=-1", 0, Wanted::Nothing);
    }

    #[test]
    fn what_is_no_single_range_means_the_whole() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=99999999999999999999-",
            "bytes=--1",
        ] {
            assert_eq!(wanted(Some(header), 10), Wanted::Whole, "{header:?}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }

    #[test]
    fn ranges_of_a_chunk() {
        assert_eq!(chunk("0-9"), Some(0..10));
        assert_eq!(chunk("bytes 5-5/10"), Some(5..6));
        assert_eq!(chunk("bytes=5-6"), Some(5..7));
        for header in ["", "-", "5-", "-5", "9-5", "a-b", "0-18446744073709551615"] {
            assert_eq!(chunk(header), None, "{header:?}");
        }
    }
}
