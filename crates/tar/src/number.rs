//! Numbers: octal and base-256 in headers, decimal in pax records.

/// A header's number: octal digits between blanks or NULs, or two's complement in base 256 when the
/// first bit is set. An empty field is 0. `None` if it is no number or does not fit.
pub(crate) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => parse_base256(field),
        _ => parse_octal(field),
    }
}

fn parse_base256(field: &[u8]) -> Option<i64> {
    // The first bit only says that it is base 256, the second is the sign.
    let (first, rest) = field.split_first()?;
    let mut value = i128::from(first & 0x7f);
    if first & 0x40 != 0 {
        value -= 0x80;
    }
    for byte in rest {
        // 12 bytes at most are 96 bits: this can't overflow.
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

/// Octal digits between blanks or NULs; 0 if there are none.
pub(crate) fn parse_octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(*byte, b' ' | 0);
    let mut digits = field.iter().skip_while(|byte| blank(byte));
    let mut value = 0_i64;
    for digit in digits.by_ref() {
        match digit {
            b'0'..=b'7' => value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?,
            // What follows a terminator is not part of the number: old writers leave rubbish there.
            digit if blank(digit) => break,
            _ => return None,
        }
    }
    Some(value)
}

/// Decimal digits and nothing else, at least one.
pub(crate) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `[-]seconds[.fraction]`, as seconds rounded down and nanoseconds. Digits beyond the ninth are cut
/// off before the sign counts, as Go does.
pub(crate) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(parse_decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0_u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            let digit = fraction.get(place).map_or(0, |digit| digit - b'0');
            nanoseconds = nanoseconds * 10 + u32::from(digit);
        }
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// Seconds and nanoseconds as pax has them.
pub(crate) fn print_time(seconds: i64, nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, seconds, nanoseconds) = if seconds < 0 {
        (
            "-",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanoseconds,
        )
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// Zero-filled octal digits and a NUL. False, and the field is left alone, if they don't fit.
pub(crate) fn print_octal(field: &mut [u8], value: u64) -> bool {
    let Some(digits) = field.len().checked_sub(1) else {
        return false;
    };
    let text = format!("{value:0digits$o}\0");
    if text.len() != field.len() {
        return false;
    }
    field.copy_from_slice(text.as_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers_stand_between_blanks_and_nuls() {
        for (field, expect) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0  644 ", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"", Some(0)),
            (b"        ", Some(0)),
            (b"12 \x00xyz", Some(0o12)),
            (b"0008", None),
            (b"-1", None),
            (b"0x10", None),
            (b"7777777777777777777777777", None),
        ] {
            assert_eq!(parse(field), expect, "{field:?}");
        }
    }

    #[test]
    fn base_256_numbers_are_two_s_complement() {
        for (field, expect) in [
            (&b"\x80\0\0\0\0\0\0\x01"[..], Some(1)),
            (b"\x80\0\0\0\x02\0\0\0", Some(0x0200_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX),
            ),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80", Some(0)),
        ] {
            assert_eq!(parse(field), expect, "{field:?}");
        }
    }

    #[test]
    fn times_round_down_to_whole_nanoseconds_counted_from_zero() {
        for (text, expect) in [
            ("0", Some((0, 0))),
            ("1700000000.5", Some((1_700_000_000, 500_000_000))),
            ("1.000000001", Some((1, 1))),
            ("1.0000000019", Some((1, 1))),
            ("-1", Some((-1, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.1", Some((-1, 900_000_000))),
            ("-1.0000000000", Some((-1, 0))),
            ("1.", Some((1, 0))),
            (".5", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("1.5x", None),
            ("1.-5", None),
            ("9223372036854775807", Some((i64::MAX, 0))),
            ("9223372036854775808", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), expect, "{text:?}");
        }
    }

    #[test]
    fn times_go_both_ways() {
        for time in [
            (0, 0),
            (1, 1),
            (5, 120_000_000),
            (-1, 0),
            (-2, 500_000_000),
            (-1, 900_000_000),
        ] {
            assert_eq!(
                parse_time(print_time(time.0, time.1).as_bytes()),
                Some(time)
            );
        }
    }

    #[test]
    fn decimals_are_digits_only() {
        for (text, expect) in [
            ("0", Some(0)),
            ("00012", Some(12)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            (":", None),
            ("/", None),
        ] {
            assert_eq!(parse_decimal(text.as_bytes()), expect, "{text:?}");
        }
    }

    #[test]
    fn octal_is_printed_only_where_it_fits() {
        let mut field = [b'x'; 8];
        assert!(print_octal(&mut field, 0o7_777_777));
        assert_eq!(&field, b"7777777\0");
        assert!(!print_octal(&mut field, 0o10_000_000));
        assert!(print_octal(&mut field, 0));
        assert_eq!(&field, b"0000000\0");
    }
}
