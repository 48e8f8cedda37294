//! One rule → one RBAC policy: `to` becomes permissions, `from` principals, each `when` either.

#![allow(deprecated)] // `metadata` in RBAC: istiod sends it, and waypoints of older versions know nothing else.

use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use super::super::api::{any, core, matcher, rbac, string};
use super::super::route::escaped;
use super::words::{
    Why, at, block, claim_principal, claims, header, known, of_destination, one_of, pattern, peer,
    permission, principal, request_principal, string_value, strings, text,
};
use crate::objects::authorization_policy::{Condition, Rule, Source};

use matcher::string_matcher::MatchPattern;
use rbac::permission::Rule as Permit;
use rbac::principal::Identifier;
use rbac::rbac::Action;

type Values<'a> = (&'a str, &'a [String], &'a [String]);

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
        permissions: vec![permission(Permit::Any(true))],
        principals: vec![principal(Identifier::Any(true))],
        ..Default::default()
    }
}

/// Matches none.
pub(super) fn never() -> rbac::Policy {
    let not_permission = Permit::NotRule(Box::new(permission(Permit::Any(true))));
    let not_principal = Identifier::NotId(Box::new(principal(Identifier::Any(true))));
    rbac::Policy {
        permissions: vec![permission(not_permission)],
        principals: vec![principal(not_principal)],
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
        let mut permissions = Vec::new();
        for to in &rule.to {
            let none = Default::default();
            let operation = to.operation.as_ref().unwrap_or(&none);
            let other = |name: &str| {
                operation
                    .other
                    .get(name)
                    .map(strings)
                    .transpose()
                    .map(Option::unwrap_or_default)
            };
            let lists = [
                ("hosts", other("hosts")?, other("notHosts")?),
                ("methods", other("methods")?, other("notMethods")?),
                ("paths", other("paths")?, other("notPaths")?),
                (
                    "destination.port",
                    operation.ports.clone(),
                    operation.not_ports.clone(),
                ),
            ];
            let lists: Vec<Values<'_>> = lists
                .iter()
                .map(|(name, values, not)| (*name, values.as_slice(), not.as_slice()))
                .collect();
            permissions.push(self.permissions(&lists, &rule.when)?);
        }
        if rule.to.is_empty() {
            permissions.push(self.permissions(&[], &rule.when)?);
        }
        let mut principals = Vec::new();
        for from in &rule.from {
            let none = Source::default();
            let source = from.source.as_ref().unwrap_or(&none);
            let other = |name: &str| {
                source
                    .other
                    .get(name)
                    .map(strings)
                    .transpose()
                    .map(Option::unwrap_or_default)
            };
            let lists = [
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
            ];
            let lists: Vec<Values<'_>> = lists
                .iter()
                .map(|(name, values, not)| (*name, values.as_slice(), not.as_slice()))
                .collect();
            principals.push(self.principals(&lists, &rule.when)?);
        }
        if rule.from.is_empty() {
            principals.push(self.principals(&[], &rule.when)?);
        }
        Ok(rbac::Policy {
            permissions,
            principals,
            ..Default::default()
        })
    }

    fn permissions(
        &self,
        lists: &[Values<'_>],
        when: &[Condition],
    ) -> Result<rbac::Permission, Why> {
        let conditions = when
            .iter()
            .filter(|condition| of_destination(&condition.key));
        let conditions =
            conditions.map(|c| (c.key.as_str(), c.values.as_slice(), c.not_values.as_slice()));
        let mut all = Vec::new();
        for (key, values, not_values) in lists.iter().copied().chain(conditions) {
            let any_of = |values: &[String]| -> Result<Option<rbac::Permission>, Why> {
                let mut rules = Vec::new();
                for value in values {
                    rules.extend(self.kept(self.permission(key, value))?);
                }
                Ok((!rules.is_empty())
                    .then(|| permission(Permit::OrRules(rbac::permission::Set { rules }))))
            };
            all.extend(any_of(values)?);
            all.extend(
                any_of(not_values)?.map(|found| permission(Permit::NotRule(Box::new(found)))),
            );
        }
        if all.is_empty() {
            all.push(permission(Permit::Any(true)));
        }
        Ok(permission(Permit::AndRules(rbac::permission::Set {
            rules: all,
        })))
    }

    fn principals(&self, lists: &[Values<'_>], when: &[Condition]) -> Result<rbac::Principal, Why> {
        let conditions = when
            .iter()
            .filter(|condition| !of_destination(&condition.key));
        let conditions =
            conditions.map(|c| (c.key.as_str(), c.values.as_slice(), c.not_values.as_slice()));
        let mut all = Vec::new();
        for (key, values, not_values) in lists.iter().copied().chain(conditions) {
            all.extend(self.any_principal(key, values)?);
            all.extend(
                self.any_principal(key, not_values)?
                    .map(|found| principal(Identifier::NotId(Box::new(found)))),
            );
        }
        if all.is_empty() {
            all.push(principal(Identifier::Any(true)));
        }
        Ok(principal(Identifier::AndIds(rbac::principal::Set {
            ids: all,
        })))
    }

    fn any_principal(&self, key: &str, values: &[String]) -> Result<Option<rbac::Principal>, Why> {
        if values.is_empty() {
            return Ok(None);
        }
        // Claims are compared as lists: one matcher for all values.
        if let Some(claims) = claims(key)? {
            let found = if self.tcp {
                Err(Why::HttpOnly)
            } else {
                Ok(claim_principal(&claims, values))
            };
            return self.kept(found);
        }
        if key == "request.auth.principal" {
            let found = if self.tcp {
                Err(Why::HttpOnly)
            } else {
                Ok(request_principal(values))
            };
            return self.kept(found);
        }
        let mut ids = Vec::new();
        for value in values.iter().flat_map(|value| self.of_domains(key, value)) {
            ids.extend(self.kept(self.principal(key, &value))?);
        }
        Ok((!ids.is_empty()).then(|| principal(Identifier::OrIds(rbac::principal::Set { ids }))))
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
        let http = |rule: Permit| {
            if self.tcp {
                Err(Why::HttpOnly)
            } else {
                Ok(permission(rule))
            }
        };
        match key {
            "hosts" => http(Permit::Header(header(":authority", value, true))),
            "methods" => http(Permit::Header(header(":method", value, false))),
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
            return if self.tcp {
                Err(Why::HttpOnly)
            } else {
                Ok(principal(Identifier::Header(header(name, value, false))))
            };
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
