//! One rule → one RBAC policy: `to` becomes permissions, `from` principals, each `when` either.

#![allow(deprecated)] // `metadata` in RBAC: istiod sends it, and waypoints of older versions know nothing else.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use serde_json::Value;

use super::super::api::{any, core, matcher, rbac, string};
use super::super::route::escaped;
use super::term::Term;
use super::words::{
    Why, at, block, claim_principal, claims, header, known, of_destination, one_of, pattern, peer,
    permission, principal, request_principal, string_value, strings, text,
};
use crate::objects::authorization_policy::{Condition, From, Rule, Source, To};

use matcher::string_matcher::MatchPattern;
use rbac::permission::Rule as Permit;
use rbac::principal::Identifier;
use rbac::rbac::Action;

/// An attribute, the values of which it must have one, and those of which it must have none.
type Attribute = (&'static str, Vec<String>, Vec<String>);

/// The policy of a rule; `None` where nothing of it is left on an opaque connection.
pub(super) fn policy(
    namespace: &str,
    domains: &[String],
    rule: &Rule,
    action: Action,
    tcp: bool,
) -> Result<Option<rbac::Policy>, String> {
    let maker = Maker {
        namespace,
        domains,
        action,
        tcp,
    };
    match maker.policy(rule) {
        Ok(policy) => Ok(Some(policy)),
        Err(Why::HttpOnly) => Ok(None),
        Err(Why::Wrong(problem)) => Err(problem),
    }
}

/// Matches every request.
pub(super) fn always() -> rbac::Policy {
    rbac::Policy {
        permissions: vec![Term::always()],
        principals: vec![Term::always()],
        ..Default::default()
    }
}

/// Matches none.
pub(super) fn never() -> rbac::Policy {
    rbac::Policy {
        permissions: vec![rbac::Permission::always().not()],
        principals: vec![rbac::Principal::always().not()],
        ..Default::default()
    }
}

struct Maker<'a> {
    namespace: &'a str,
    /// The mesh's trust domain, and its aliases.
    domains: &'a [String],
    action: Action,
    tcp: bool,
}

impl Maker<'_> {
    fn policy(&self, rule: &Rule) -> Result<rbac::Policy, Why> {
        for condition in &rule.when {
            known(condition)?;
        }
        let to: Result<Vec<_>, Why> = rule.to.iter().map(of_operation).collect();
        let from: Result<Vec<_>, Why> = rule.from.iter().map(of_source).collect();
        Ok(rbac::Policy {
            permissions: self.each(&to?, &rule.when, Self::any_permission)?,
            principals: self.each(&from?, &rule.when, Self::any_principal)?,
            ..Default::default()
        })
    }

    /// One condition for each `to` or `from`, or one alone where there is none.
    fn each<T: Term>(
        &self,
        parts: &[Vec<Attribute>],
        when: &[Condition],
        any_of: impl Fn(&Self, &str, &[String]) -> Result<Option<T>, Why>,
    ) -> Result<Vec<T>, Why> {
        let nothing = [Vec::new()];
        let parts = if parts.is_empty() { &nothing } else { parts };
        let made = parts.iter().map(|part| {
            let own = part.iter().map(|(key, values, not)| (*key, values, not));
            let conditions = when
                .iter()
                .filter(|condition| of_destination(&condition.key) == T::OF_DESTINATION)
                .map(|condition| {
                    let Condition {
                        key,
                        values,
                        not_values,
                    } = condition;
                    (key.as_str(), values, not_values)
                });
            let mut all = Vec::new();
            for (key, values, not_values) in own.chain(conditions) {
                all.extend(any_of(self, key, values)?);
                all.extend(any_of(self, key, not_values)?.map(T::not));
            }
            if all.is_empty() {
                all.push(T::always());
            }
            Ok(T::all_of(all))
        });
        made.collect()
    }

    /// One matcher for each value.
    fn any_value<T: Term>(
        &self,
        values: impl IntoIterator<Item = String>,
        one: impl Fn(&str) -> Result<T, Why>,
    ) -> Result<Option<T>, Why> {
        let mut terms = Vec::new();
        for value in values {
            terms.extend(self.kept(one(&value))?);
        }
        Ok((!terms.is_empty()).then(|| T::any_of(terms)))
    }

    fn any_permission(
        &self,
        key: &str,
        values: &[String],
    ) -> Result<Option<rbac::Permission>, Why> {
        self.any_value(values.iter().cloned(), |value| self.permission(key, value))
    }

    fn any_principal(&self, key: &str, values: &[String]) -> Result<Option<rbac::Principal>, Why> {
        if values.is_empty() {
            return Ok(None);
        }
        // Claims are compared as lists: one matcher for all values.
        if let Some(claims) = claims(key)? {
            return self.kept(self.http(claim_principal(&claims, values)));
        }
        if key == "request.auth.principal" {
            return self.kept(self.http(request_principal(values)));
        }
        let values = values.iter().flat_map(|value| self.of_domains(key, value));
        self.any_value(values, |value| self.principal(key, value))
    }

    /// What an opaque connection does not have.
    fn http<T>(&self, term: T) -> Result<T, Why> {
        if self.tcp {
            Err(Why::HttpOnly)
        } else {
            Ok(term)
        }
    }

    /// A name of this mesh is so under each of its trust domains.
    fn of_domains(&self, key: &str, value: &str) -> Vec<String> {
        let (domain, rest) = match key {
            "source.principal" => value.split_once('/').unwrap_or((value, "")),
            "source.trustDomain" => (value, ""),
            _ => return vec![value.to_owned()],
        };
        let pattern = rest.contains('*');
        if pattern || self.domains.len() < 2 || !self.domains.iter().any(|known| known == domain) {
            return vec![value.to_owned()];
        }
        let slash = if rest.is_empty() { "" } else { "/" };
        self.domains
            .iter()
            .map(|domain| format!("{domain}{slash}{rest}"))
            .collect()
    }

    /// An ALLOW rule with something that can't be matched allows nothing; others apply without it.
    fn kept<T>(&self, made: Result<T, Why>) -> Result<Option<T>, Why> {
        match made {
            Ok(made) => Ok(Some(made)),
            Err(Why::HttpOnly) if self.action != Action::Allow => Ok(None),
            Err(why) => Err(why),
        }
    }

    fn permission(&self, key: &str, value: &str) -> Result<rbac::Permission, Why> {
        let http = |rule: Permit| self.http(permission(rule));
        match key {
            "hosts" => self.http(Term::header(header(":authority", value, true))),
            "methods" => self.http(Term::header(header(":method", value, false))),
            "paths" if value.contains("{*}") || value.contains("{**}") => {
                let template = value.replace("{**}", "**").replace("{*}", "*");
                let config = UriTemplateMatchConfig {
                    path_template: template,
                };
                http(Permit::UriTemplate(core::TypedExtensionConfig {
                    name: "uri-template".to_owned(),
                    typed_config: Some(any(&config)),
                }))
            }
            "paths" => http(Permit::UrlPath(matcher::PathMatcher {
                rule: Some(matcher::path_matcher::Rule::Path(text(value))),
            })),
            "destination.port" => {
                let port: u16 = value.parse().map_err(|_| {
                    Why::Wrong(format!(
                        "port {value:?}: it must be a number from 1 to 65535"
                    ))
                })?;
                Ok(permission(Permit::DestinationPort(u32::from(port))))
            }
            "destination.ip" => Ok(permission(Permit::DestinationIp(block(value)?))),
            "connection.sni" => Ok(permission(Permit::RequestedServerName(text(value)))),
            other => {
                let (filter, name) = other
                    .strip_prefix("experimental.")
                    .and_then(|rest| rest.strip_suffix(']')?.split_once('['))
                    .ok_or_else(|| {
                        Why::Wrong(format!(
                            "when key {other:?}: it must be experimental.envoy.filters.NAME[KEY]"
                        ))
                    })?;
                let listed = value
                    .strip_prefix('[')
                    .and_then(|value| value.strip_suffix(']'));
                let value = match listed {
                    Some(value) => one_of(string_value(text(value))),
                    None => string_value(text(value)),
                };
                Ok(permission(Permit::Metadata(at(filter, &[name], value))))
            }
        }
    }

    fn principal(&self, key: &str, value: &str) -> Result<rbac::Principal, Why> {
        if let Some(name) = key.strip_prefix("request.headers") {
            let name = name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'));
            let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
                Why::Wrong(format!(
                    "when key {key:?}: it must be request.headers[NAME]"
                ))
            })?;
            return self.http(Term::header(header(name, value, false)));
        }
        match key {
            "source.ip" => Ok(principal(Identifier::DirectRemoteIp(block(value)?))),
            "remote.ip" => Ok(principal(Identifier::RemoteIp(block(value)?))),
            "source.namespace" => {
                let literal: Vec<String> = value.split('*').map(escaped).collect();
                Ok(peer(pattern(format!(".*/ns/{}/.*", literal.join(".*")))))
            }
            "source.serviceAccount" => {
                let (namespace, account) = value.split_once('/').unwrap_or((self.namespace, value));
                Ok(peer(pattern(format!(
                    "spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?",
                    escaped(namespace),
                    escaped(account)
                ))))
            }
            "source.trustDomain" => Ok(peer(match value.split_once('*') {
                Some(("", "")) => string(MatchPattern::Prefix("spiffe://".to_owned()), false),
                None => string(MatchPattern::Prefix(format!("spiffe://{value}/")), false),
                Some((before, after)) => pattern(format!(
                    "spiffe://{}[^/]*{}/.*",
                    escaped(before),
                    escaped(after)
                )),
            })),
            "source.principal" => Ok(peer(
                match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
                    ("*", _, _) => pattern(".+".to_owned()),
                    (_, Some(suffix), _) => pattern(format!("spiffe://.*{}", escaped(suffix))),
                    (_, _, Some(prefix)) => {
                        string(MatchPattern::Prefix(format!("spiffe://{prefix}")), false)
                    }
                    _ => string(MatchPattern::Exact(format!("spiffe://{value}")), false),
                },
            )),
            other => Err(Why::Wrong(format!("when key {other:?} is not known"))),
        }
    }
}

/// What a `to` asks for.
fn of_operation(to: &To) -> Result<Vec<Attribute>, Why> {
    let none = Default::default();
    let operation = to.operation.as_ref().unwrap_or(&none);
    let names = [
        "hosts",
        "notHosts",
        "methods",
        "notMethods",
        "paths",
        "notPaths",
    ];
    only(&operation.other, "to.operation", &names)?;
    let other = |name| listed(&operation.other, name);
    Ok(vec![
        ("hosts", other("hosts")?, other("notHosts")?),
        ("methods", other("methods")?, other("notMethods")?),
        ("paths", other("paths")?, other("notPaths")?),
        (
            "destination.port",
            operation.ports.clone(),
            operation.not_ports.clone(),
        ),
    ])
}

/// What a `from` asks for.
fn of_source(from: &From) -> Result<Vec<Attribute>, Why> {
    let none = Source::default();
    let source = from.source.as_ref().unwrap_or(&none);
    let names = [
        "requestPrincipals",
        "notRequestPrincipals",
        "trustDomains",
        "notTrustDomains",
        "remoteIpBlocks",
        "notRemoteIpBlocks",
    ];
    only(&source.other, "from.source", &names)?;
    let other = |name| listed(&source.other, name);
    Ok(vec![
        (
            "source.principal",
            source.principals.clone(),
            source.not_principals.clone(),
        ),
        (
            "request.auth.principal",
            other("requestPrincipals")?,
            other("notRequestPrincipals")?,
        ),
        (
            "source.serviceAccount",
            source.service_accounts.clone(),
            source.not_service_accounts.clone(),
        ),
        (
            "source.trustDomain",
            other("trustDomains")?,
            other("notTrustDomains")?,
        ),
        (
            "source.namespace",
            source.namespaces.clone(),
            source.not_namespaces.clone(),
        ),
        (
            "remote.ip",
            other("remoteIpBlocks")?,
            other("notRemoteIpBlocks")?,
        ),
        (
            "source.ip",
            source.ip_blocks.clone(),
            source.not_ip_blocks.clone(),
        ),
    ])
}

/// A part that is not known asks for something that nobody would look at: a policy would allow more.
fn only(other: &BTreeMap<String, Value>, place: &str, names: &[&str]) -> Result<(), Why> {
    let odd = other.keys().find(|name| !names.contains(&name.as_str()));
    odd.map_or(Ok(()), |name| {
        Err(Why::Wrong(format!("{place}.{name} is not known")))
    })
}

fn listed(other: &BTreeMap<String, Value>, name: &str) -> Result<Vec<String>, Why> {
    let found = other.get(name).map(strings).transpose()?;
    Ok(found.unwrap_or_default())
}
