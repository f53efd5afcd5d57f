//! Sizes and durations as people write and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, typed as `1MiB` and printed as `1.0 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// Units and their power of two, largest first.
const UNITS: &[(&str, u32)] = &[("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseSizeError {
    /// Digits, then perhaps a unit, are expected.
    #[error("write a whole number and a unit: B, KiB, MiB, GiB or TiB, for example 1MiB")]
    Form,
    /// More than 64 bits.
    #[error("it is more than 16 EiB")]
    TooLarge,
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start() {
            "" | "B" => 0,
            unit => {
                UNITS
                    .iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or(ParseSizeError::Form)?
                    .1
            }
        };
        if number.is_empty() {
            return Err(ParseSizeError::Form);
        }
        let number: u64 = number.parse().map_err(|_| ParseSizeError::TooLarge)?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or(ParseSizeError::TooLarge)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, shift)| self.0 >= 1 << shift);
        let text = match unit {
            None => format!("{} B", self.0),
            Some((name, shift)) => {
                // In integers, so that no rounding surprises: tenths of the unit, rounded.
                let tenths = (u128::from(self.0) * 10 + (1 << (shift - 1))) >> shift;
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            }
        };
        f.pad(&text)
    }
}

/// A time to wait, typed and printed as `30s` or `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    /// In whole milliseconds.
    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Why a text is not a time to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number and a unit: ms, s, min or h, for example 30s")]
pub(crate) struct ParseSpanError;

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| ParseSpanError)?;
        let unit_ms = match unit.trim_start() {
            "ms" => 1,
            "s" => 1000,
            "min" => 60_000,
            "h" => 3_600_000,
            _ => return Err(ParseSpanError),
        };
        let millis = number.checked_mul(unit_ms).ok_or(ParseSpanError)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let text = if millis.is_multiple_of(1000) {
            format!("{}s", millis / 1000)
        } else {
            format!("{millis}ms")
        };
        f.pad(&text)
    }
}

/// A duration printed as `0.034 s`, `12.3 s` or `2 min 05 s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = if seconds >= 100 {
            format!("{} min {:02} s", seconds / 60, seconds % 60)
        } else if seconds >= 10 {
            format!("{:.1} s", self.0.as_secs_f64())
        } else {
            format!("{:.3} s", self.0.as_secs_f64())
        };
        f.pad(&text)
    }
}

/// `part` of `whole` in percent, printed with one decimal; 0 % of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_wait_go_both_ways() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2min", 120_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.millis(), millis);
            assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
        for text in ["", "30", "s", "1.5s", "-1s", "99999999999999999999s"] {
            assert_eq!(text.parse::<Span>(), Err(ParseSpanError), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_parsed_with_their_units() {
        #[track_caller]
        fn check(text: &str, expect: Result<u64, ParseSizeError>) {
            assert_eq!(text.parse::<Size>().map(|size| size.0), expect, "{text:?}");
        }
        check("0", Ok(0));
        check("4096", Ok(4096));
        check("17B", Ok(17));
        check("1MiB", Ok(1 << 20));
        check("2 GiB", Ok(2 << 30));
        check("MiB", Err(ParseSizeError::Form));
        check("1MB", Err(ParseSizeError::Form));
        check("1.5MiB", Err(ParseSizeError::Form));
        check("-1", Err(ParseSizeError::Form));
        check("", Err(ParseSizeError::Form));
        check("99999999TiB", Err(ParseSizeError::TooLarge));
        check("99999999999999999999", Err(ParseSizeError::TooLarge));
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        #[track_caller]
        fn check(bytes: u64, expect: &str) {
            assert_eq!(Size(bytes).to_string(), expect);
        }
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1536, "1.5 KiB");
        check(170_401_280, "162.5 MiB");
        check(u64::MAX, "16777216.0 TiB");
    }

    #[test]
    fn durations_are_shown_as_precisely_as_they_matter() {
        let show = |ms| Seconds(Duration::from_millis(ms)).to_string();
        assert_eq!(show(34), "0.034 s");
        assert_eq!(show(12_340), "12.3 s");
        assert_eq!(show(125_000), "2 min 05 s");
    }

    #[test]
    fn a_part_of_nothing_is_no_percent() {
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(percent(1, 3), "33.3 %");
    }
}
