//! Times as text: RFC 3339 with milliseconds, or a format with `strftime`'s conversions and Envoy's
//! fractions of a second (`%3f`).

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Appends a time. Without a format it looks like `2026-11-22T07:14:56.123Z`.
pub(in crate::telemetry) fn write(at: SystemTime, format: Option<&str>, out: &mut String) -> bool {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let Ok(time) = OffsetDateTime::from_unix_timestamp(since.as_secs().cast_signed()) else {
        return false;
    };
    let nanos = since.subsec_nanos();
    match format {
        None => default(time, nanos, out),
        Some(format) => formatted(time, since.as_secs(), nanos, format, out),
    }
    .is_ok()
}

fn default(time: OffsetDateTime, nanos: u32, out: &mut String) -> std::fmt::Result {
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let millis = nanos / 1_000_000;
    write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
    )
}

fn formatted(
    time: OffsetDateTime,
    seconds: u64,
    nanos: u32,
    format: &str,
    out: &mut String,
) -> std::fmt::Result {
    let mut rest = format.chars();
    while let Some(next) = rest.next() {
        if next != '%' {
            out.push(next);
            continue;
        }
        let fraction = |digits: u32| (nanos / 10_u32.pow(9 - digits), digits as usize);
        match rest.next() {
            Some('Y') => write!(out, "{:04}", time.year())?,
            Some('y') => write!(out, "{:02}", time.year().rem_euclid(100))?,
            Some('m') => write!(out, "{:02}", u8::from(time.month()))?,
            Some('d') => write!(out, "{:02}", time.day())?,
            Some('e') => write!(out, "{:2}", time.day())?,
            Some('j') => write!(out, "{:03}", time.ordinal())?,
            Some('b' | 'h') => out.push_str(&time.month().to_string()[..3]),
            Some('B') => write!(out, "{}", time.month())?,
            Some('a') => out.push_str(&time.weekday().to_string()[..3]),
            Some('A') => write!(out, "{}", time.weekday())?,
            Some('H') => write!(out, "{:02}", time.hour())?,
            Some('M') => write!(out, "{:02}", time.minute())?,
            Some('S') => write!(out, "{:02}", time.second())?,
            Some('F') => formatted(time, seconds, nanos, "%Y-%m-%d", out)?,
            Some('T') => formatted(time, seconds, nanos, "%H:%M:%S", out)?,
            Some('s') => write!(out, "{seconds}")?,
            Some('z') => out.push_str("+0000"),
            Some('Z') => out.push_str("UTC"),
            Some('f') => write!(out, "{nanos:09}")?,
            Some('%') => out.push('%'),
            // `%E3S`: seconds with so many digits behind the point.
            Some('E') => {
                let digits = rest.next().and_then(|digit| digit.to_digit(10));
                let (value, width) = fraction(digits.unwrap_or(3).clamp(1, 9));
                rest.next();
                write!(out, "{:02}.{value:0width$}", time.second())?;
            }
            Some(digit @ '1'..='9') if rest.clone().next() == Some('f') => {
                rest.next();
                let (value, width) = fraction(digit.to_digit(10).unwrap_or(9));
                write!(out, "{value:0width$}")?;
            }
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push('%'),
        }
    }
    Ok(())
}
