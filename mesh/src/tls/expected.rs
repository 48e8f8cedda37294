//! Whom the caller of a connection accepts at its other end. Pure.

use std::fmt;
use std::sync::Arc;

use crate::identity::Identity;

/// One acceptable peer, or many.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expected {
    /// Exactly this workload.
    Identity(Identity),
    /// Every identity that begins so; made by [`Expected::prefix`].
    Prefix(Prefix),
}

/// The beginning of SPIFFE IDs; it ends where a part of them ends.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(Arc<str>);

/// A text that begins no sensible set of identities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} would accept identities of trust domains that only begin alike: expected spiffe://<trust domain>/, and further parts that end in /"
)]
pub struct ExpectedError(pub String);

impl Expected {
    /// Every identity that begins with `text`: `spiffe://<trust domain>/` accepts a whole trust
    /// domain, as istiod tells a waypoint to, `spiffe://<trust domain>/ns/<namespace>/` a namespace.
    ///
    /// # Errors
    /// If the text has no complete trust domain, or ends within a part.
    pub fn prefix(text: &str) -> Result<Self, ExpectedError> {
        let domain = text
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'));
        match domain {
            Some((domain, _)) if !domain.is_empty() && text.ends_with('/') => {
                Ok(Self::Prefix(Prefix(text.into())))
            }
            _ => Err(ExpectedError(text.to_owned())),
        }
    }

    /// Whether this peer will do.
    #[must_use]
    pub fn accepts(&self, peer: &Identity) -> bool {
        match self {
            Self::Identity(identity) => identity == peer,
            Self::Prefix(prefix) => peer.as_str().starts_with(&*prefix.0),
        }
    }
}

impl From<Identity> for Expected {
    fn from(identity: Identity) -> Self {
        Self::Identity(identity)
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(identity) => identity.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_never_ends_within_a_part() {
        for wrong in [
            "",
            "*",
            "spiffe://",
            "spiffe:///",
            "spiffe://td",
            "spiffe://td/ns",
            "spiffe://td/ns/a/sa/b",
            "http://td/",
        ] {
            assert!(Expected::prefix(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_is_accepted() {
        let peer: Identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let prefix = |text| Expected::prefix(text).unwrap();
        assert!(Expected::from(peer.clone()).accepts(&peer));
        assert!(prefix("spiffe://td/").accepts(&peer));
        assert!(prefix("spiffe://td/ns/a/").accepts(&peer));
        assert!(prefix("spiffe://td/ns/a/sa/").accepts(&peer));
        let other = "spiffe://td/ns/a/sa/c".parse::<Identity>().unwrap();
        assert!(!Expected::from(other).accepts(&peer));
        for stranger in ["spiffe://td.evil/", "spiffe://t/", "spiffe://td/ns/ab/"] {
            assert!(!prefix(stranger).accepts(&peer), "{stranger}");
        }
    }
}
