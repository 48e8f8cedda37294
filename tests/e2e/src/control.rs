//! Which control plane drives the data plane in a story.

use std::fmt;
use std::str::FromStr;

/// The control plane that a cluster is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Culvert's own, installed by the chart.
    Culvert,
    /// The real istiod, installed by the real istioctl; the chart gives the data plane alone.
    Istiod,
}

impl Control {
    /// Both, in the order in which the stories are told.
    pub const ALL: [Self; 2] = [Self::Culvert, Self::Istiod];
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Culvert => "culvert",
            Self::Istiod => "istiod",
        })
    }
}

impl FromStr for Control {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "culvert" => Ok(Self::Culvert),
            "istiod" => Ok(Self::Istiod),
            _ => Err(format!(
                "unknown control plane {word:?}: it is culvert or istiod"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() {
        for control in Control::ALL {
            assert_eq!(control.to_string().parse(), Ok(control));
        }
        assert!("linkerd".parse::<Control>().is_err());
    }
}
