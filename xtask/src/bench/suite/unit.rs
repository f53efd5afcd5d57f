//! Units of numbers.

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    /// Things.
    Count,
    /// Hundredths of something else.
    Percent,
    /// A multiple of something else.
    Times,
}

impl Unit {
    /// A value with its unit, for people.
    pub(crate) fn shown(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 0.1 => format!("{:.1} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes => format!("{:.1} MB", value / 1e6),
            Self::Count => format!("{value:.0}"),
            Self::Percent => format!("{value:.2} %"),
            Self::Times => format!("{value:.2} ×"),
        }
    }
}

/// How many hundredths of `whole` a part is.
pub(crate) fn percent(part: f64, whole: f64) -> f64 {
    100.0 * part / whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_their_units() {
        assert_eq!(Unit::Seconds.shown(0.0123), "12.3 ms");
        assert_eq!(Unit::Seconds.shown(1.234), "1.23 s");
        assert_eq!(Unit::Bytes.shown(1_250_000.0), "1.2 MB");
        assert_eq!(Unit::Count.shown(41.0), "41");
        assert_eq!(Unit::Percent.shown(percent(1.0, 3.0)), "33.33 %");
        assert_eq!(Unit::Times.shown(1.0), "1.00 ×");
    }
}
