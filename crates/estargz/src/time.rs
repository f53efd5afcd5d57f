//! Times as text: RFC 3339.

/// Days from the beginning of the Gregorian calendar's year 0 to 1970.
const DAYS_TO_1970: i64 = 719_528;
const DAY_SECONDS: i64 = 86_400;

/// A time (seconds since 1970, nanoseconds) as text, in UTC; `None` outside of the years 0 to 9999, which are all
/// that RFC 3339 has.
pub(crate) fn print((seconds, nanoseconds): (i64, u32)) -> Option<String> {
    let days = seconds.div_euclid(DAY_SECONDS) + DAYS_TO_1970;
    let clock = seconds.rem_euclid(DAY_SECONDS);
    // No year is longer than 366 days, so this is not too late, and too early by few years.
    let mut year = days.div_euclid(366);
    if !(0..=9999).contains(&year) {
        return None;
    }
    while days_before_year(year + 1) <= days {
        year += 1;
    }
    if year > 9999 {
        return None;
    }
    let mut day = days - days_before_year(year);
    let mut month = 1;
    while let Some(length) = days_in(year, month).filter(|length| *length <= day) {
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let mut text = format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}",
        day + 1
    );
    if nanoseconds > 0 {
        let fraction = format!(".{nanoseconds:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    Some(text)
}

/// Seconds since 1970 and nanoseconds; `None` if it is no time.
pub(crate) fn parse(text: &str) -> Option<(i64, u32)> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut parts = date.split('-');
    // Writers print years of more than four digits as they are.
    let year = number(parts.next()?, 4..=6)?;
    let month = number(parts.next()?, 2..=2)?;
    let day = number(parts.next()?, 2..=2)?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone_at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut hms = clock.split(':');
    let hour = number(hms.next()?, 2..=2)?;
    let minute = number(hms.next()?, 2..=2)?;
    let second = number(hms.next()?, 2..=2)?;
    if parts.next().is_some() || hms.next().is_some() {
        return None;
    }
    // A leap second is the next minute's first.
    if hour > 23 || minute > 59 || second > 60 || day < 1 || day > days_in(year, month)? {
        return None;
    }
    let days = days_before_year(year) + days_before_month(year, month)? + day - 1 - DAYS_TO_1970;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some((seconds - offset(zone)?, nanoseconds(fraction)?))
}

fn number(digits: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let fits =
        lengths.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| fits)
}

/// The fraction's first nine digits; further ones say nothing that can be kept.
fn nanoseconds(fraction: &str) -> Option<u32> {
    if fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    Some(digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

/// How many seconds a zone is before UTC.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'Z' | b'z' => return (zone.len() == 1).then_some(0),
        b'+' => 1,
        _ => -1,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (number(hours, 2..=2)?, number(minutes, 2..=2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from the beginning of year 0 to that of `year`.
fn days_before_year(year: i64) -> i64 {
    if year == 0 {
        return 0;
    }
    let last = year - 1;
    // Year 0 is a leap year that the quotients do not count.
    year * 365 + last / 4 - last / 100 + last / 400 + 1
}

fn days_in(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    })
}

fn days_before_month(year: i64, month: i64) -> Option<i64> {
    (1..month).map(|month| days_in(year, month)).sum()
}

#[cfg(test)]
mod tests {
    use super::{parse, print};

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, expect) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("2020-01-01T01:02:03Z", (1_577_840_523, 0)),
            ("2000-02-29T23:59:59.5Z", (951_868_799, 500_000_000)),
            ("1969-12-31T23:59:59.999999999Z", (-1, 999_999_999)),
            ("2026-11-28T10:09:45+01:00", (1_795_856_985, 0)),
            ("2026-11-28T08:39:45-00:30", (1_795_856_985, 0)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
            ("0000-01-01T00:00:00Z", (-62_167_219_200, 0)),
            ("10000-01-01T00:00:00Z", (253_402_300_800, 0)),
        ] {
            assert_eq!(parse(text), Some(expect), "{text}");
        }
    }

    #[test]
    fn times_are_printed_as_they_are_read() {
        for (time, expect) in [
            ((0, 0), "1970-01-01T00:00:00Z"),
            ((1_577_840_523, 0), "2020-01-01T01:02:03Z"),
            ((951_868_799, 500_000_000), "2000-02-29T23:59:59.5Z"),
            ((-1, 999_999_999), "1969-12-31T23:59:59.999999999Z"),
            ((-62_167_219_200, 1), "0000-01-01T00:00:00.000000001Z"),
            ((253_402_300_799, 0), "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(print(time).unwrap(), expect);
        }
        for seconds in [-62_167_219_201, 253_402_300_800, i64::MIN, i64::MAX] {
            assert_eq!(print((seconds, 0)), None);
        }
        // Every day of 400 years and more, at changing times of day.
        for day in -300_000_i64..200_000 {
            let time = (day * 86_400 + day.rem_euclid(86_400), 7);
            assert_eq!(parse(&print(time).unwrap()), Some(time));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "T",
            "2020-01-01",
            "2020-01-01T01:02:03",
            "2020-01-01 01:02:03Z",
            "2020-02-30T01:02:03Z",
            "2020-13-01T01:02:03Z",
            "2020-01-01T24:02:03Z",
            "2020-01-01T01:02:03.Z",
            "2020-01-01T01:02:03Zz",
            "2020-01-01T01:02:03+1:00",
            "2020-01-01T01:02:03+é:00",
            "20-01-01T01:02:03Z",
            "2020-01-01T+1:02:03Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
