//! Durations as Istio's objects write them: `1h30m`, `2.5s`, `100ms`.

use serde::{Deserialize, Deserializer};

/// A duration that is not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

impl std::str::FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration: write 1h, 30m, 2.5s or 100ms");
        if text == "0" {
            return Ok(Self::default());
        }
        let (mut rest, mut total) = (text, 0f64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let unit = rest
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(rest.len());
            let seconds = match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
            total += number * seconds;
            rest = &rest[unit..];
        }
        std::time::Duration::try_from_secs_f64(total)
            .map(Self)
            .map_err(|_| wrong())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up_and_nonsense_is_named() {
        let millis = |text: &str| text.parse::<Duration>().map(|d| d.0.as_millis());
        assert_eq!(millis("1h2m3.5s"), Ok(3_723_500));
        assert_eq!(millis("100ms"), Ok(100));
        assert_eq!(millis("0s"), Ok(0));
        for wrong in ["", "5", "s", "1x", "-1s", "1.2.3s", "1e400h"] {
            assert!(
                millis(wrong).unwrap_err().contains("no duration"),
                "{wrong}"
            );
        }
    }
}
