//! What consistent balancers hash → [`model::route::HashPolicy`](crate::model::route::HashPolicy).

use envoy_types::pb::envoy::config::route::v3::route_action as route;

use super::error::{At as _, Refused, each, need};
use super::{plain, text};
use crate::model::route::{HashOf, HashPolicy};

/// Hash policies, in order.
///
/// # Errors
/// One hashes nothing, or something that isn't there.
pub(super) fn policies(policies: Vec<route::HashPolicy>) -> Result<Vec<HashPolicy>, Refused> {
    use route::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier,
        QueryParameter,
    };

    each("hash_policy", policies, |policy| {
        let route::HashPolicy {
            terminal,
            policy_specifier,
        } = policy;
        let of = match need(policy_specifier, "policy_specifier")? {
            PolicySpecifier::Header(Header {
                header_name,
                regex_rewrite,
            }) => {
                let rewrite = regex_rewrite.map(text::substitution).transpose();
                HashOf::Header(
                    text::header_key(&header_name).at("header.header_name")?,
                    rewrite.at("header.regex_rewrite")?,
                )
            }
            PolicySpecifier::Cookie(Cookie {
                name,
                ttl,
                path,
                attributes,
            }) => {
                if name.is_empty() {
                    return Err(Refused::new("must not be empty").under("cookie.name"));
                }
                let attributes = attributes.into_iter();
                HashOf::Cookie {
                    name: name.into(),
                    ttl: plain::maybe_duration(ttl, "cookie.ttl")?,
                    path: path.into(),
                    attributes: attributes
                        .map(|CookieAttribute { name, value }| (name.into(), value.into()))
                        .collect(),
                }
            }
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }) => {
                HashOf::SourceIp
            }
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false }) => {
                let reason = "of a connection only the source's address is hashed";
                return Err(Refused::new(reason).under("connection_properties.source_ip"));
            }
            PolicySpecifier::QueryParameter(QueryParameter { name }) => {
                if name.is_empty() {
                    return Err(Refused::new("must not be empty").under("query_parameter.name"));
                }
                HashOf::Query(name.into())
            }
            PolicySpecifier::FilterState(FilterState { key }) => {
                let reason = format!("{key:?} is written down by nobody");
                return Err(Refused::new(reason).under("filter_state.key"));
            }
        };
        Ok(HashPolicy { of, terminal })
    })
}

#[cfg(test)]
mod tests {
    use route::hash_policy::{self, PolicySpecifier};

    use super::*;
    use crate::model::text::HeaderKey;

    fn one(specifier: Option<PolicySpecifier>) -> Result<HashOf, String> {
        let policy = route::HashPolicy {
            terminal: true,
            policy_specifier: specifier,
        };
        let mut compiled = policies(vec![policy]).map_err(|refused| refused.to_string())?;
        assert!(compiled[0].terminal);
        Ok(compiled.remove(0).of)
    }

    #[test]
    fn each_value_becomes_its_own() {
        let header = hash_policy::Header {
            header_name: "X-User".into(),
            regex_rewrite: None,
        };
        let header = one(Some(PolicySpecifier::Header(header))).unwrap();
        assert!(matches!(header, HashOf::Header(HeaderKey::Name(name), None) if name == "x-user"));
        let cookie = hash_policy::Cookie {
            name: "c".into(),
            ttl: Some(Default::default()),
            path: "/".into(),
            attributes: vec![hash_policy::CookieAttribute {
                name: "SameSite".into(),
                value: "Lax".into(),
            }],
        };
        let cookie = one(Some(PolicySpecifier::Cookie(cookie))).unwrap();
        let HashOf::Cookie {
            ttl, attributes, ..
        } = cookie
        else {
            panic!("it is a cookie");
        };
        assert_eq!(ttl, Some(std::time::Duration::ZERO));
        assert_eq!(attributes, [("SameSite".into(), "Lax".into())]);
        let source = hash_policy::ConnectionProperties { source_ip: true };
        let source = one(Some(PolicySpecifier::ConnectionProperties(source))).unwrap();
        assert!(matches!(source, HashOf::SourceIp));
        let query = hash_policy::QueryParameter { name: "q".into() };
        let query = one(Some(PolicySpecifier::QueryParameter(query))).unwrap();
        assert!(matches!(query, HashOf::Query(name) if &*name == "q"));
    }

    #[test]
    fn what_cannot_be_hashed_is_refused() {
        let state = hash_policy::FilterState { key: "a".into() };
        for (specifier, told) in [
            (None, "hash_policy[0].policy_specifier: must be set"),
            (
                Some(PolicySpecifier::Header(Default::default())),
                "hash_policy[0].header.header_name",
            ),
            (
                Some(PolicySpecifier::Cookie(Default::default())),
                "hash_policy[0].cookie.name",
            ),
            (
                Some(PolicySpecifier::ConnectionProperties(Default::default())),
                "hash_policy[0].connection_properties.source_ip",
            ),
            (
                Some(PolicySpecifier::QueryParameter(Default::default())),
                "hash_policy[0].query_parameter.name",
            ),
            (
                Some(PolicySpecifier::FilterState(state)),
                "hash_policy[0].filter_state.key",
            ),
        ] {
            let refused = one(specifier).unwrap_err();
            assert!(refused.starts_with(told), "{refused}");
        }
    }
}
