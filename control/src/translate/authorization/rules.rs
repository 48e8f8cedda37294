//! One rule of an AuthorizationPolicy → clauses of the wire format.
//!
//! `to` and `from` become one clause each, whose matches are alternatives; each `when` becomes a
//! clause of its own. All clauses must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use mesh::proto::security::string_match::MatchType;
use mesh::proto::security::{Address, Clause, Match, ServiceAccountMatch, StringMatch};
use serde_json::Value;

use crate::objects::authorization_policy::{Condition, Operation, Rule, Source};
use crate::translate::octets;

/// A rule, translated as far as L4 goes.
pub(super) struct Translated {
    pub(super) clauses: Vec<Clause>,
    /// Names of attributes that only a waypoint can enforce.
    pub(super) unsupported: BTreeSet<String>,
    /// What is wrong in it.
    pub(super) problems: Vec<String>,
}

pub(super) fn rule(rule: &Rule, namespace: &str) -> Translated {
    let mut reader = Reader {
        namespace,
        field: String::new(),
        problems: Vec::new(),
        unsupported: BTreeSet::new(),
    };
    let mut clauses = Vec::new();
    if !rule.to.is_empty() {
        let matches = rule.to.iter().enumerate().map(|(number, to)| {
            reader.field = format!("to[{number}].operation");
            reader.operation(to.operation.as_ref())
        });
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    if !rule.from.is_empty() {
        let matches = rule.from.iter().enumerate().map(|(number, from)| {
            reader.field = format!("from[{number}].source");
            reader.source(from.source.as_ref())
        });
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    for (number, condition) in rule.when.iter().enumerate() {
        reader.field = format!("when[{number}]");
        clauses.push(Clause {
            matches: vec![reader.condition(condition)],
        });
    }
    Translated {
        clauses,
        unsupported: reader.unsupported,
        problems: reader.problems,
    }
}

/// Reads values, noting what is wrong or beyond L4.
struct Reader<'a> {
    namespace: &'a str,
    field: String,
    problems: Vec<String>,
    unsupported: BTreeSet<String>,
}

impl Reader<'_> {
    fn operation(&mut self, operation: Option<&Operation>) -> Match {
        let Some(operation) = operation.filter(|operation| **operation != Operation::default())
        else {
            return self.empty();
        };
        self.beyond(&operation.other);
        Match {
            destination_ports: self.ports("ports", &operation.ports),
            not_destination_ports: self.ports("notPorts", &operation.not_ports),
            ..Match::default()
        }
    }

    fn source(&mut self, source: Option<&Source>) -> Match {
        let Some(source) = source.filter(|source| **source != Source::default()) else {
            return self.empty();
        };
        self.beyond(&source.other);
        Match {
            namespaces: self.strings("namespaces", &source.namespaces),
            not_namespaces: self.strings("notNamespaces", &source.not_namespaces),
            principals: self.strings("principals", &source.principals),
            not_principals: self.strings("notPrincipals", &source.not_principals),
            service_accounts: self.accounts("serviceAccounts", &source.service_accounts),
            not_service_accounts: self.accounts("notServiceAccounts", &source.not_service_accounts),
            source_ips: self.blocks("ipBlocks", &source.ip_blocks),
            not_source_ips: self.blocks("notIpBlocks", &source.not_ip_blocks),
            ..Match::default()
        }
    }

    fn condition(&mut self, condition: &Condition) -> Match {
        if condition.values.is_empty() && condition.not_values.is_empty() {
            self.problem("", "needs values or notValues");
        }
        let mut found = Match::default();
        match condition.key.as_str() {
            "source.namespace" => {
                found.namespaces = self.strings("values", &condition.values);
                found.not_namespaces = self.strings("notValues", &condition.not_values);
            }
            "source.principal" => {
                found.principals = self.strings("values", &condition.values);
                found.not_principals = self.strings("notValues", &condition.not_values);
            }
            "source.ip" => {
                found.source_ips = self.blocks("values", &condition.values);
                found.not_source_ips = self.blocks("notValues", &condition.not_values);
            }
            "destination.ip" => {
                found.destination_ips = self.blocks("values", &condition.values);
                found.not_destination_ips = self.blocks("notValues", &condition.not_values);
            }
            "destination.port" => {
                found.destination_ports = self.ports("values", &condition.values);
                found.not_destination_ports = self.ports("notValues", &condition.not_values);
            }
            "" => self.problem("key", "is empty"),
            other => {
                self.unsupported.insert(other.to_owned());
            }
        }
        found
    }

    /// An empty source or operation would match everything: surely not what was meant.
    fn empty(&mut self) -> Match {
        self.problem(
            "",
            "is empty: name at least one attribute, or leave the list out to match everything",
        );
        Match::default()
    }

    fn beyond(&mut self, other: &BTreeMap<String, Value>) {
        let said = other.iter().filter(|(_, value)| {
            !matches!(value, Value::Null) && !value.as_array().is_some_and(Vec::is_empty)
        });
        self.unsupported.extend(said.map(|(name, _)| name.clone()));
    }

    fn problem(&mut self, field: &str, what: impl std::fmt::Display) {
        let dot = if field.is_empty() { "" } else { "." };
        self.problems
            .push(format!("{}{dot}{field} {what}", self.field));
    }

    fn strings(&mut self, field: &str, values: &[String]) -> Vec<StringMatch> {
        self.each(field, values, |value| {
            let kind = match (value.strip_prefix('*'), value.strip_suffix('*')) {
                (Some(""), _) => MatchType::Presence(()),
                (Some(suffix), _) => MatchType::Suffix(suffix.to_owned()),
                (None, Some(prefix)) => MatchType::Prefix(prefix.to_owned()),
                (None, None) => MatchType::Exact(value.to_owned()),
            };
            Ok(StringMatch {
                match_type: Some(kind),
            })
        })
    }

    fn accounts(&mut self, field: &str, values: &[String]) -> Vec<ServiceAccountMatch> {
        let own = self.namespace.to_owned();
        self.each(field, values, |value| {
            let (namespace, service_account) = value.split_once('/').unwrap_or((&own, value));
            if namespace.is_empty() || service_account.is_empty() || service_account.contains('/') {
                return Err("it must be ACCOUNT or NAMESPACE/ACCOUNT".to_owned());
            }
            Ok(ServiceAccountMatch {
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
            })
        })
    }

    fn ports(&mut self, field: &str, values: &[String]) -> Vec<u32> {
        self.each(field, values, |value| match value.parse::<u16>() {
            Ok(port) if port > 0 => Ok(u32::from(port)),
            _ => Err("it must be a port from 1 to 65535".to_owned()),
        })
    }

    fn blocks(&mut self, field: &str, values: &[String]) -> Vec<Address> {
        self.each(field, values, |value| {
            let block = match value.parse::<IpNet>() {
                Ok(block) => block,
                Err(_) => value
                    .parse::<IpAddr>()
                    .map(IpNet::from)
                    .map_err(|_| "it must be an IP address or a CIDR block".to_owned())?,
            };
            Ok(Address {
                address: octets(block.addr()),
                length: u32::from(block.prefix_len()),
            })
        })
    }

    fn each<T>(
        &mut self,
        field: &str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut parsed = Vec::with_capacity(values.len());
        for value in values {
            match if value.is_empty() {
                Err("it is empty".to_owned())
            } else {
                parse(value)
            } {
                Ok(value) => parsed.push(value),
                Err(why) => self.problem(field, format_args!("has {value:?}: {why}")),
            }
        }
        parsed
    }
}
