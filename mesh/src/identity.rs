//! Who a workload is: trust domains and SPIFFE identities, parsed once at the edge and cheap to
//! clone. Knows no certificate and no policy.
//!
//! The only form accepted is Istio's, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`,
//! with the character sets of the SPIFFE ID standard: a trust domain of lower-case letters,
//! digits, `.`, `-` and `_`; path segments of letters, digits, `.`, `-` and `_`, never `.` or `..`.
//! Nothing is normalised: two identities are equal only if their bytes are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest SPIFFE ID, in bytes (SPIFFE ID standard, section 2.3).
pub const MAX_IDENTITY: usize = 2048;
/// Longest trust domain, in bytes (SPIFFE ID standard, section 2.1).
pub const MAX_TRUST_DOMAIN: usize = 255;

const SCHEME: &str = "spiffe://";

/// The administrative root under which identities are issued, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// A workload's SPIFFE ID. Equality, order and hash are those of its text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    uri: Arc<str>,
    /// Offset in `uri` of the `/` after the trust domain.
    trust_domain_end: u16,
    /// Offset in `uri` of the `/` after the namespace.
    namespace_end: u16,
}

/// Why a text is no trust domain or identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text doesn't begin with `spiffe://`.
    #[error("{0:?} is no SPIFFE ID: it must begin with spiffe://")]
    Scheme(String),
    /// The path is not `/ns/<namespace>/sa/<service account>`.
    #[error(
        "{0:?} is no workload identity: expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
    )]
    Shape(String),
    /// A part is empty, too long, or holds a character that SPIFFE forbids.
    #[error(
        "{part} {value:?} is empty, too long, or has a character that a SPIFFE ID may not have"
    )]
    Part {
        /// Which part: `trust domain`, `namespace` or `service account`.
        part: &'static str,
        /// The text found there.
        value: String,
    },
    /// Longer than [`MAX_IDENTITY`].
    #[error("a SPIFFE ID of {0} bytes is longer than the {MAX_IDENTITY} allowed")]
    TooLong(usize),
}

impl TrustDomain {
    /// Parses a trust domain.
    ///
    /// # Errors
    /// [`IdentityError::Part`] if it is empty, too long or has a forbidden character.
    pub fn new(text: &str) -> Result<Self, IdentityError> {
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }

    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Identity {
    /// The identity of a service account.
    ///
    /// # Errors
    /// [`IdentityError::Part`] if the namespace or the service account is not a path segment.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        check_segment("namespace", namespace)?;
        check_segment("service account", service_account)?;
        Self::assemble(trust_domain.as_str(), namespace, service_account)
    }

    /// The whole SPIFFE ID: `spiffe://cluster.local/ns/default/sa/sleep`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The identity as authorisation policies write principals: without `spiffe://`.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.uri[SCHEME.len()..]
    }

    /// The trust domain's text.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..usize::from(self.trust_domain_end)]
    }

    /// Whether the identity belongs to this trust domain.
    #[must_use]
    pub fn is_in(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain() == trust_domain.as_str()
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.uri
            [usize::from(self.trust_domain_end) + "/ns/".len()..usize::from(self.namespace_end)]
    }

    /// The service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.uri[usize::from(self.namespace_end) + "/sa/".len()..]
    }

    /// Builds the text from parts that have been checked.
    fn assemble(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        let uri = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}");
        if uri.len() > MAX_IDENTITY {
            return Err(IdentityError::TooLong(uri.len()));
        }
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        let namespace_end = trust_domain_end + "/ns/".len() + namespace.len();
        let offset = |end: usize| u16::try_from(end).expect("MAX_IDENTITY is below 65536");
        Ok(Self {
            trust_domain_end: offset(trust_domain_end),
            namespace_end: offset(namespace_end),
            uri: uri.into(),
        })
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::new(text)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.len() > MAX_IDENTITY {
            return Err(IdentityError::TooLong(text.len()));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| IdentityError::Scheme(text.to_owned()))?;
        let mut parts = rest.split('/');
        let mut part = || parts.next();
        let (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (part(), part(), part(), part(), part(), part())
        else {
            return Err(IdentityError::Shape(text.to_owned()));
        };
        check_trust_domain(trust_domain)?;
        check_segment("namespace", namespace)?;
        check_segment("service account", account)?;
        Self::assemble(trust_domain, namespace, account)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

fn check_trust_domain(text: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
        return Err(IdentityError::Part {
            part: "trust domain",
            value: text.to_owned(),
        });
    }
    Ok(())
}

fn check_segment(part: &'static str, text: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.is_empty() || text == "." || text == ".." || !text.bytes().all(allowed) {
        return Err(IdentityError::Part {
            part,
            value: text.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_found_again() {
        let id: Identity = "spiffe://cluster.local/ns/default/sa/book-info"
            .parse()
            .unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), "default");
        assert_eq!(id.service_account(), "book-info");
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/book-info");
        assert_eq!(
            id.to_string(),
            "spiffe://cluster.local/ns/default/sa/book-info"
        );
        let domain = TrustDomain::new("cluster.local").unwrap();
        assert!(id.is_in(&domain));
        assert!(!id.is_in(&TrustDomain::new("cluster.loca").unwrap()));
        assert_eq!(Identity::new(&domain, "default", "book-info").unwrap(), id);
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let shape = |t: &str| matches!(t.parse::<Identity>(), Err(IdentityError::Shape(_)));
        assert!(shape("spiffe://td"));
        assert!(shape("spiffe://td/"));
        assert!(shape("spiffe://td/ns/a"));
        assert!(shape("spiffe://td/ns/a/sa/b/"));
        assert!(shape("spiffe://td/ns/a/sa/b/c"));
        assert!(shape("spiffe://td/sa/a/ns/b"));
        assert!(shape("spiffe://td/NS/a/sa/b"));
        assert!(shape("spiffe://td//ns/a/sa/b"));
        let scheme = |t: &str| matches!(t.parse::<Identity>(), Err(IdentityError::Scheme(_)));
        assert!(scheme(""));
        assert!(scheme("td/ns/a/sa/b"));
        assert!(scheme("SPIFFE://td/ns/a/sa/b"));
        assert!(scheme(" spiffe://td/ns/a/sa/b"));
        let part = |t: &str| match t.parse::<Identity>() {
            Err(IdentityError::Part { part, .. }) => part,
            other => panic!("{t}: {other:?}"),
        };
        assert_eq!(part("spiffe:///ns/a/sa/b"), "trust domain");
        assert_eq!(part("spiffe://TD/ns/a/sa/b"), "trust domain");
        assert_eq!(part("spiffe://td:80/ns/a/sa/b"), "trust domain");
        assert_eq!(part("spiffe://td/ns//sa/b"), "namespace");
        assert_eq!(part("spiffe://td/ns/../sa/b"), "namespace");
        assert_eq!(part("spiffe://td/ns/a/sa/"), "service account");
        assert_eq!(part("spiffe://td/ns/a/sa/b%2fc"), "service account");
        assert_eq!(part("spiffe://td/ns/a/sa/b?x"), "service account");
        let long = format!("spiffe://td/ns/a/sa/{}", "b".repeat(MAX_IDENTITY));
        assert!(matches!(
            long.parse::<Identity>(),
            Err(IdentityError::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn what_parses_is_written_the_same(
            td in "[a-z0-9._-]{1,40}", ns in "[a-z0-9][a-zA-Z0-9._-]{0,62}", sa in "[a-z0-9][a-z0-9.-]{0,62}"
        ) {
            let domain = TrustDomain::new(&td).unwrap();
            let id = Identity::new(&domain, &ns, &sa).unwrap();
            let again: Identity = id.to_string().parse().unwrap();
            prop_assert_eq!(&again, &id);
            prop_assert_eq!((again.trust_domain(), again.namespace(), again.service_account()),
                (td.as_str(), ns.as_str(), sa.as_str()));
        }

        #[test]
        fn no_text_panics_and_none_is_normalised(text in "(spiffe://)?[a-z/]{0,12}(/ns/)?[^\u{0}]{0,20}(/sa/)?.{0,20}") {
            if let Ok(id) = text.parse::<Identity>() {
                prop_assert_eq!(id.as_str(), text.as_str());
            }
        }

        #[test]
        fn parts_never_smuggle_a_separator(ns in ".{0,12}", sa in ".{0,12}") {
            let domain = TrustDomain::new("td").unwrap();
            if let Ok(id) = Identity::new(&domain, &ns, &sa) {
                prop_assert_eq!(id.namespace(), ns.as_str());
                prop_assert_eq!(id.to_string().parse::<Identity>().unwrap(), id);
            }
        }
    }
}
