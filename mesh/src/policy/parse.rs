//! From `istio.security.Authorization` to the model. A policy that can't be taken by its word is
//! refused by name: dropping the one value that isn't understood, as Istio's ztunnel does, would
//! widen what the policy allows.

use ipnet::IpNet;

use super::rule::{Clause, Match, Rule, ServiceAccount, StringMatch};
use super::{Action, Authorization, PolicyName, Scope};
use crate::proto::security as proto;
use crate::workload::Invalid;
use crate::workload::refusal::{Refusal, block, known, port, refuse, required};

impl TryFrom<proto::Authorization> for Authorization {
    type Error = Invalid;

    fn try_from(message: proto::Authorization) -> Result<Self, Invalid> {
        let name = format!("policy {}/{}", message.namespace, message.name);
        authorization(message).map_err(|refusal| refusal.of(name))
    }
}

fn authorization(m: proto::Authorization) -> Result<Authorization, Refusal> {
    let name = PolicyName::new(&m.namespace, required("name", &m.name)?);
    let scope = match known("scope", m.scope)? {
        proto::Scope::Global => Scope::Global,
        proto::Scope::Namespace => Scope::Namespace,
        proto::Scope::WorkloadSelector => Scope::Selector,
    };
    if scope == Scope::Namespace && m.namespace.is_empty() {
        return Err(refuse(
            "namespace",
            "empty, but the policy is for a namespace",
        ));
    }
    let action = match known("action", m.action)? {
        proto::Action::Allow => Action::Allow,
        proto::Action::Deny => Action::Deny,
    };
    let rules = m.rules.iter().enumerate().map(|(r, message)| {
        let clauses = message.clauses.iter().enumerate().map(|(c, message)| {
            let matches = message.matches.iter().enumerate().map(|(i, message)| {
                one_match(message)
                    .map_err(|e| e.within(format!("rules[{r}].clauses[{c}].matches[{i}]")))
            });
            Ok(Clause {
                matches: matches.collect::<Result<_, _>>()?,
            })
        });
        Ok(Rule {
            clauses: clauses.collect::<Result<_, _>>()?,
        })
    });
    let rules = rules.collect::<Result<_, Refusal>>()?;
    let dry_run = m.dry_run;
    Ok(Authorization {
        name,
        scope,
        action,
        rules,
        dry_run,
    })
}

fn one_match(m: &proto::Match) -> Result<Match, Refusal> {
    Ok(Match {
        namespaces: strings("namespaces", &m.namespaces)?,
        not_namespaces: strings("not_namespaces", &m.not_namespaces)?,
        principals: strings("principals", &m.principals)?,
        not_principals: strings("not_principals", &m.not_principals)?,
        service_accounts: accounts("service_accounts", &m.service_accounts)?,
        not_service_accounts: accounts("not_service_accounts", &m.not_service_accounts)?,
        source_ips: blocks("source_ips", &m.source_ips)?,
        not_source_ips: blocks("not_source_ips", &m.not_source_ips)?,
        destination_ips: blocks("destination_ips", &m.destination_ips)?,
        not_destination_ips: blocks("not_destination_ips", &m.not_destination_ips)?,
        destination_ports: ports("destination_ports", &m.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &m.not_destination_ports)?,
    })
}

/// Parses each value of a field; a refusal carries the field's name and the value's index.
fn each<T, U>(
    field: &str,
    values: &[T],
    parse: impl Fn(&T) -> Result<U, String>,
) -> Result<Vec<U>, Refusal> {
    let values = values.iter().enumerate();
    values
        .map(|(i, value)| parse(value).map_err(|e| refuse(format!("{field}[{i}]"), e)))
        .collect()
}

fn strings(field: &str, values: &[proto::StringMatch]) -> Result<Vec<StringMatch>, Refusal> {
    use proto::string_match::MatchType;
    each(field, values, |value| {
        let (kind, text, make): (_, _, fn(_) -> _) = match &value.match_type {
            Some(MatchType::Exact(text)) => ("exact", text, StringMatch::Exact),
            Some(MatchType::Prefix(text)) => ("prefix", text, StringMatch::Prefix),
            Some(MatchType::Suffix(text)) => ("suffix", text, StringMatch::Suffix),
            Some(MatchType::Presence(_)) => return Ok(StringMatch::Presence),
            None => {
                return Err(
                    "neither exact, prefix, suffix nor presence: the control plane is \
                            probably newer than this proxy"
                        .to_owned(),
                );
            }
        };
        if text.is_empty() {
            return Err(format!("an empty {kind}: use presence for any value"));
        }
        Ok(make(text.as_str().into()))
    })
}

fn accounts(
    field: &str,
    values: &[proto::ServiceAccountMatch],
) -> Result<Vec<ServiceAccount>, Refusal> {
    each(field, values, |value| {
        if value.namespace.is_empty() || value.service_account.is_empty() {
            return Err("needs both a namespace and a service account".to_owned());
        }
        Ok(ServiceAccount {
            namespace: value.namespace.as_str().into(),
            name: value.service_account.as_str().into(),
        })
    })
}

fn blocks(field: &str, values: &[proto::Address]) -> Result<Vec<IpNet>, Refusal> {
    each(field, values, |value| block(&value.address, value.length))
}

fn ports(field: &str, values: &[u32]) -> Result<Vec<u16>, Refusal> {
    let values = values.iter().enumerate();
    values
        .map(|(i, value)| port(&format!("{field}[{i}]"), *value))
        .collect()
}
