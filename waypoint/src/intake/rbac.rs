//! Envoy's RBAC, for HTTP and for connections → [`model::policy`](crate::model::policy). Nothing
//! here is passed over: a condition that can't be compiled refuses the whole resource, since a
//! policy with a hole is none.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kind;

use super::error::{At as _, Refused, each, each_keyed, need};
use super::served::Notes;
use super::{metadata, plain, template, text, typed};
use crate::model::policy::{Action, Condition, Policy, Rbac, Rules};
use crate::unserved;

/// The filter state under which `connect_terminate` writes down who the peer is.
pub(super) const PEER: &str = "io.istio.peer_principal";

/// How deep conditions may stand inside each other. Istio's are three deep.
const DEPTH: usize = 32;

/// RBAC of HTTP.
///
/// # Errors
/// A condition can't be compiled.
pub fn http(filter: http::Rbac, notes: &mut Notes) -> Result<Rbac, Refused> {
    let http::Rbac {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = filter;
    unserved!(notes, "RBAC":
        rules_stat_prefix, matcher, shadow_matcher, track_per_rule_stats);
    Ok(Rbac {
        rules: maybe(rules, notes).at("rules")?,
        shadow: maybe(shadow_rules, notes).at("shadow_rules")?,
        shadow_prefix: shadow_rules_stat_prefix.into(),
    })
}

/// RBAC of connections.
///
/// # Errors
/// A condition can't be compiled, or is one on HTTP, which a connection doesn't have.
pub fn network(filter: network::Rbac, notes: &mut Notes) -> Result<Rbac, Refused> {
    let network::Rbac {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix: _,
        enforcement_type: _,
        delay_deny,
    } = filter;
    unserved!(notes, "RBAC": matcher, shadow_matcher);
    unserved!(notes, "network.RBAC": delay_deny);
    let compiled = Rbac {
        rules: maybe(rules, notes).at("rules")?,
        shadow: maybe(shadow_rules, notes).at("shadow_rules")?,
        shadow_prefix: shadow_rules_stat_prefix.into(),
    };
    for rules in [&compiled.rules, &compiled.shadow].into_iter().flatten() {
        for policy in &rules.policies {
            let mut conditions = policy.permissions.iter().chain(&policy.principals);
            if conditions.any(about_http) {
                let reason = "a connection has no headers, paths or claims: such a condition would \
                              never hold";
                return Err(Refused::new(reason).under(&format!("policies[{:?}]", policy.name)));
            }
        }
    }
    Ok(compiled)
}

fn about_http(condition: &Condition) -> bool {
    match condition {
        Condition::Header(_)
        | Condition::Path(_)
        | Condition::PathTemplate(_)
        | Condition::Metadata(_) => true,
        Condition::All(conditions) | Condition::AnyOf(conditions) => {
            conditions.iter().any(about_http)
        }
        Condition::Not(condition) => about_http(condition),
        Condition::Any
        | Condition::DestinationIp(_)
        | Condition::DestinationPort(_)
        | Condition::DestinationPorts(..)
        | Condition::ServerName(_)
        | Condition::Peer(_)
        | Condition::Authenticated(_)
        | Condition::SourceIp(_)
        | Condition::RemoteIp(_) => false,
    }
}

fn maybe(rules: Option<rbac::Rbac>, notes: &mut Notes) -> Result<Option<Rules>, Refused> {
    rules.map(|rules| self::rules(rules, notes)).transpose()
}

fn rules(rules: rbac::Rbac, notes: &mut Notes) -> Result<Rules, Refused> {
    let rbac::Rbac {
        action,
        policies,
        audit_logging_options,
    } = rules;
    unserved!(notes, "config.RBAC": audit_logging_options);
    let action = match rbac::rbac::Action::try_from(action) {
        Ok(rbac::rbac::Action::Allow) => Action::Allow,
        Ok(rbac::rbac::Action::Deny) => Action::Deny,
        Ok(rbac::rbac::Action::Log) => Action::Log,
        Err(_) => return Err(Refused::new(format!("{action} is no action")).under("action")),
    };
    let policies = each_keyed("policies", policies, |name, policy| {
        self::policy(name, policy, notes)
    })?;
    Ok(Rules { action, policies })
}

fn policy(name: &str, policy: rbac::Policy, notes: &mut Notes) -> Result<Policy, Refused> {
    let rbac::Policy {
        permissions,
        principals,
        condition,
        checked_condition,
        cel_config,
    } = policy;
    unserved!(notes, "Policy": condition, checked_condition, cel_config);
    Ok(Policy {
        name: name.into(),
        permissions: several("permissions", permissions, |one| permission(one, 0))?,
        principals: several("principals", principals, |one| principal(one, 0))?,
    })
}

/// Every list of conditions has one at least, as Envoy demands.
fn several<T>(
    field: &str,
    list: Vec<T>,
    compile: impl FnMut(T) -> Result<Condition, Refused>,
) -> Result<Vec<Condition>, Refused> {
    if list.is_empty() {
        return Err(Refused::new("must not be empty").under(field));
    }
    each(field, list, compile)
}

fn deeper(depth: usize) -> Result<usize, Refused> {
    match depth < DEPTH {
        true => Ok(depth + 1),
        false => Err(Refused::new(format!(
            "conditions are more than {DEPTH} deep"
        ))),
    }
}

fn permission(permission: rbac::Permission, depth: usize) -> Result<Condition, Refused> {
    use rbac::permission::{Rule, Set};

    let depth = deeper(depth)?;
    Ok(match need(permission.rule, "rule")? {
        Rule::AndRules(Set { rules }) => {
            let all = several("rules", rules, |one| self::permission(one, depth));
            Condition::All(all.at("and_rules")?)
        }
        Rule::OrRules(Set { rules }) => {
            let any = several("rules", rules, |one| self::permission(one, depth));
            Condition::AnyOf(any.at("or_rules")?)
        }
        Rule::NotRule(rule) => {
            Condition::Not(Box::new(self::permission(*rule, depth).at("not_rule")?))
        }
        Rule::Any(any) => self::any(any)?,
        Rule::Header(header) => Condition::Header(text::header(header).at("header")?),
        Rule::UrlPath(path) => url_path(path)?,
        Rule::UriTemplate(template) => uri_template(template).at("uri_template")?,
        Rule::DestinationIp(range) => {
            Condition::DestinationIp(plain::range(range).at("destination_ip")?)
        }
        Rule::DestinationPort(port) => {
            Condition::DestinationPort(plain::port(port).at("destination_port")?)
        }
        Rule::DestinationPortRange(kind::Int32Range { start, end }) => {
            ports(start, end).at("destination_port_range")?
        }
        Rule::RequestedServerName(name) => {
            Condition::ServerName(text::string(name).at("requested_server_name")?)
        }
        #[expect(deprecated, reason = "istiod of earlier versions sends the old form")]
        Rule::Metadata(value) => Condition::Metadata(metadata::matcher(value).at("metadata")?),
        Rule::SourcedMetadata(value) => sourced(value).at("sourced_metadata")?,
        Rule::Matcher(extension) => return Err(extended(&extension).under("matcher")),
    })
}

fn principal(principal: rbac::Principal, depth: usize) -> Result<Condition, Refused> {
    use rbac::principal::{Authenticated, Identifier, Set};

    let depth = deeper(depth)?;
    #[expect(deprecated, reason = "istiod of earlier versions sends the old forms")]
    Ok(match need(principal.identifier, "identifier")? {
        Identifier::AndIds(Set { ids }) => {
            let all = several("ids", ids, |one| self::principal(one, depth));
            Condition::All(all.at("and_ids")?)
        }
        Identifier::OrIds(Set { ids }) => {
            let any = several("ids", ids, |one| self::principal(one, depth));
            Condition::AnyOf(any.at("or_ids")?)
        }
        Identifier::NotId(id) => {
            Condition::Not(Box::new(self::principal(*id, depth).at("not_id")?))
        }
        Identifier::Any(any) => self::any(any)?,
        Identifier::Authenticated(Authenticated { principal_name }) => {
            let name = principal_name.map(text::string).transpose();
            Condition::Authenticated(name.at("authenticated.principal_name")?)
        }
        Identifier::SourceIp(range) => Condition::SourceIp(plain::range(range).at("source_ip")?),
        Identifier::DirectRemoteIp(range) => {
            Condition::SourceIp(plain::range(range).at("direct_remote_ip")?)
        }
        Identifier::RemoteIp(range) => Condition::RemoteIp(plain::range(range).at("remote_ip")?),
        Identifier::Header(header) => Condition::Header(text::header(header).at("header")?),
        Identifier::UrlPath(path) => url_path(path)?,
        Identifier::Metadata(value) => {
            Condition::Metadata(metadata::matcher(value).at("metadata")?)
        }
        Identifier::SourcedMetadata(value) => sourced(value).at("sourced_metadata")?,
        Identifier::FilterState(state) => filter_state(state).at("filter_state")?,
        Identifier::Custom(extension) => return Err(extended(&extension).under("custom")),
    })
}

fn any(any: bool) -> Result<Condition, Refused> {
    match any {
        true => Ok(Condition::Any),
        false => Err(Refused::new("must be true").under("any")),
    }
}

fn url_path(path: matcher::PathMatcher) -> Result<Condition, Refused> {
    let matcher::path_matcher::Rule::Path(path) = need(path.rule, "url_path.path")?;
    Ok(Condition::Path(text::string(path).at("url_path.path")?))
}

fn uri_template(extension: core::TypedExtensionConfig) -> Result<Condition, Refused> {
    let core::TypedExtensionConfig {
        name: _,
        typed_config,
    } = extension;
    let config = need(typed_config, "typed_config")?;
    let UriTemplateMatchConfig { path_template } =
        typed::unpack_whole(&config).at("typed_config")?;
    let template = template::parse(&path_template).at("path_template")?;
    Ok(Condition::PathTemplate(template))
}

fn ports(start: i32, end: i32) -> Result<Condition, Refused> {
    let first = u16::try_from(start).ok();
    let last = u32::try_from(end).ok().filter(|end| *end <= 65_536);
    match (first, last) {
        (Some(first), Some(last)) if u32::from(first) < last => {
            Ok(Condition::DestinationPorts(first, last))
        }
        _ => Err(Refused::new(format!(
            "{start} to {end} is no range of ports"
        ))),
    }
}

fn sourced(value: rbac::SourcedMetadata) -> Result<Condition, Refused> {
    let rbac::SourcedMetadata {
        metadata_matcher,
        metadata_source,
    } = value;
    if metadata_source != rbac::MetadataSource::Dynamic as i32 {
        let reason = "only what filters wrote down is compared, not what stands in the route";
        return Err(Refused::new(reason).under("metadata_source"));
    }
    let field = "metadata_matcher";
    let compiled = metadata::matcher(need(metadata_matcher, field)?).at(field)?;
    Ok(Condition::Metadata(compiled))
}

fn filter_state(state: matcher::FilterStateMatcher) -> Result<Condition, Refused> {
    use matcher::filter_state_matcher::Matcher;

    let matcher::FilterStateMatcher { key, matcher } = state;
    if key != PEER {
        let reason = format!("{key:?} is written down by nobody; the peer is {PEER:?}");
        return Err(Refused::new(reason).under("key"));
    }
    match need(matcher, "string_match")? {
        Matcher::StringMatch(text) => Ok(Condition::Peer(text::string(text).at("string_match")?)),
        Matcher::AddressMatch(_) => {
            Err(Refused::new("the peer's identity is text").under("address_match"))
        }
    }
}

fn extended(extension: &core::TypedExtensionConfig) -> Refused {
    let name = &extension.name;
    Refused::new(format!("{name:?}: conditions are matched by no extension"))
}

#[cfg(test)]
mod tests;
