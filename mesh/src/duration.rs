//! Durations as Go writes them (`time.ParseDuration`), and so Istio's flags, settings and objects do:
//! `1h30m`, `2.5s`, `100ms`.

use std::time::Duration;

/// Go's units and how many nanoseconds each has; of two that begin alike the longer stands first.
const UNITS: [(&str, u128); 7] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];
/// More digits than this after a point are below a nanosecond of an hour.
const PRECISION: usize = 15;

/// Reads a duration that is not negative; `0` needs no unit.
///
/// # Errors
/// In words that show the right form.
pub fn parse(text: &str) -> Result<Duration, String> {
    nanoseconds(text).ok_or_else(|| {
        format!("{text:?} is not a duration; it should look like 24h, 1h30m, 2.5s or 100ms")
    })
}

fn nanoseconds(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = Some(text).filter(|text| !text.is_empty())?;
    let mut total = 0u128;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (part, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let (unit, after) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((*unit, after.strip_prefix(name)?)))?;
        total = total.checked_add(number(whole)?.checked_mul(unit)?)?;
        let part = &part[..part.len().min(PRECISION)];
        let part = number(part)? * unit / 10u128.pow(u32::try_from(part.len()).ok()?);
        total = total.checked_add(part)?;
        rest = after;
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    let below = u32::try_from(total % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, below))
}

/// The digits that a text begins with, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn number(digits: &str) -> Option<u128> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up_and_fractions_are_exact() {
        for (text, nanoseconds) in [
            ("24h", 86_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m30s", 90_000_000_000),
            ("2.5s", 2_500_000_000),
            ("1s500ms", 1_500_000_000),
            (".1s", 100_000_000),
            ("1.s", 1_000_000_000),
            ("0.3ms", 300_000),
            ("7us", 7_000),
            ("7µs", 7_000),
            ("9ns", 9),
            ("0.0000000001s", 0),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for text in [
            "",
            "5",
            "s",
            ".s",
            "-1s",
            "+1s",
            "1d",
            "1 s",
            "1h ",
            "1.2.3s",
            "99999999999999999999h",
            "340282366920938463463374607431768211456s",
            "340282366920938463463374607431.9s",
            "1e3s",
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(&format!("{text:?} is not")), "{said}");
        }
    }
}
