//! Durations as Go and protobuf write them.

use std::time::Duration;

/// Numbers with `h`, `m`, `s`, `ms` or `us`, such as `1h30m` or `2.5s`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; it should look like 24h, 30m or 90s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let after = &rest[end..];
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = match &after[..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return Err(wrong()),
        };
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
        rest = &after[letters..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_and_protobuf_write_them() {
        for (text, seconds) in [
            ("24h", 86_400.0),
            ("1m30s", 90.0),
            ("2.5s", 2.5),
            ("5ms", 0.005),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                Duration::from_secs_f64(seconds),
                "{text}"
            );
        }
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
        for text in ["", "5", "s", "-1s", "1d", "1.2.3s", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
