//! Durations as Istio's objects write them: `1h30m`, `2.5s`, `100ms`.

use serde::{Deserialize, Deserializer};

/// A duration that is not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

impl std::str::FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        mesh::duration::parse(text).map(Self)
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
    fn an_objects_durations_are_gos() {
        let millis = |text: &str| text.parse::<Duration>().map(|d| d.0.as_millis());
        assert_eq!(millis("1h2m3.5s"), Ok(3_723_500));
        assert_eq!(millis("100ms"), Ok(100));
        assert_eq!(millis("0s"), Ok(0));
        for wrong in ["", "5", "s", "1x", "-1s", "1.2.3s", "1e400h"] {
            assert!(
                millis(wrong).unwrap_err().contains("not a duration"),
                "{wrong}"
            );
        }
    }
}
