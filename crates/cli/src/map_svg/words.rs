//! Numbers as the picture writes them.

use crate::units::Size;

/// A number of bytes, or of milliseconds, to calculate with; more than 2^53 loses what nobody sees.
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// A number of things to calculate with.
pub(crate) fn float_of(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Bytes, `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    Size(bytes).to_string()
}

/// Units of a span of time, shortest first: below how many milliseconds it is used, how many
/// milliseconds it is, and its name.
const SPANS: &[(f64, f64, &str)] = &[
    (1000.0, 1.0, "ms"),
    (100_000.0, 1000.0, "s"),
    (6_000_000.0, 60_000.0, "min"),
    (172_800_000.0, 3_600_000.0, "h"),
];

const DAY_MS: f64 = 86_400_000.0;

/// A span of time with three digits at most, `0.42 ms`, `812 ms`, `3.24 s`, `12.5 min`.
pub(crate) fn span(ms: f64) -> String {
    let unit = SPANS.iter().find(|(below, ..)| ms < *below);
    let (ms_each, name) = unit.map_or((DAY_MS, "d"), |(_, each, name)| (*each, *name));
    let value = ms / ms_each;
    let text = if value >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    let text = match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
        None => &text,
    };
    format!("{text} {name}")
}

/// A span in microseconds.
pub(crate) fn span_us(us: u64) -> String {
    span(float(us) / 1000.0)
}

/// `1 wait`, `2 waits`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        thousands(number),
        if number == 1 { one } else { many }
    )
}

/// A number with its thousands apart, `12 345`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // A space that does not end a line and is narrow.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A digest as people say it: its algorithm and the first digits.
pub(crate) fn short_digest(digest: &str) -> String {
    let (algorithm, digits) = digest.split_once(':').unwrap_or(("", digest));
    let digits: String = digits.chars().take(12).collect();
    if algorithm.is_empty() {
        return digits;
    }
    let algorithm: String = algorithm.chars().take(12).collect();
    format!("{algorithm}:{digits}")
}

/// Steps of an axis, in milliseconds.
const STEPS_MS: &[f64] = &[
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
    1000.0,
    2000.0,
    5000.0,
    10_000.0,
    20_000.0,
    30_000.0,
    60_000.0,
    120_000.0,
    300_000.0,
    600_000.0,
    1_200_000.0,
    1_800_000.0,
    3_600_000.0,
    7_200_000.0,
    14_400_000.0,
    21_600_000.0,
    43_200_000.0,
    DAY_MS,
];

/// Ticks of an axis from 0 to `end_ms`, at most `most` besides the one at 0.
pub(crate) fn ticks(end_ms: f64, most: f64) -> Vec<f64> {
    let listed = STEPS_MS.iter().copied().find(|step| end_ms / step <= most);
    let mut step = listed.unwrap_or(DAY_MS);
    while end_ms / step > most {
        step *= 2.0;
    }
    let ticks = std::iter::successors(Some(0.0), |at| Some(at + step));
    ticks.take_while(|at| *at <= end_ms).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_three_digits() {
        #[track_caller]
        fn check(ms: f64, expect: &str) {
            assert_eq!(span(ms), expect);
        }
        check(0.0, "0 ms");
        check(0.416, "0.42 ms");
        check(812.3, "812 ms");
        check(1200.0, "1.2 s");
        check(3236.0, "3.24 s");
        check(750_000.0, "12.5 min");
        check(7_200_000.0, "2 h");
        check(864_000_000.0, "10 d");
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(
            ticks(2300.0, 12.0),
            [
                0.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0, 1400.0, 1600.0, 1800.0, 2000.0,
                2200.0
            ]
        );
        assert_eq!(ticks(1.5e5, 4.0), [0.0, 60_000.0, 120_000.0]);
        for end in [0.5, 10.0, 1e4, 1e9, 1e19] {
            let ticks = ticks(end, 12.0);
            assert!(!ticks.is_empty() && ticks.len() <= 13, "{end}");
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn digests_are_short() {
        assert_eq!(
            short_digest("sha256:0123456789abcdef"),
            "sha256:0123456789ab"
        );
        assert_eq!(short_digest("x"), "x");
    }
}
