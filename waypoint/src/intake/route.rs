//! Envoy's `RouteConfiguration` → [`model::route::RouteTable`](crate::model::route::RouteTable):
//! domains, hosts and routes.

mod parts;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;

use super::alike::Alike;
use super::error::{At as _, Refused, each, need};
use super::headers::{self, Lists};
use super::served::Notes;
use super::{action, answer, matches, overrides, plain, rate_limit, text, tracing, typed};
use crate::model::jwt::Requirement;
use crate::model::route::{FilterOverrides, Mirror, Route, RouteAction, RouteTable, VirtualHost};
use crate::unserved;
use parts::Parts;

/// Envoy's limit to bodies of direct answers, in bytes.
const LONGEST_BODY: usize = 4096;

/// What a route needs to know of what is around it.
#[derive(Debug)]
pub struct Scope {
    /// Requirements that the chain's `jwt_authn` filter has by name.
    pub requirements: Vec<(Box<str>, Requirement)>,
    /// Mirrors of the host or table, for routes that have none.
    pub(super) mirrors: Vec<Mirror>,
    /// The longest body of a direct answer, in bytes.
    pub(super) longest_body: usize,
    /// What routes of the table have alike, kept once.
    pub(super) alike: Rc<Alike>,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            requirements: Vec::new(),
            mirrors: Vec::new(),
            longest_body: LONGEST_BODY,
            alike: Rc::default(),
        }
    }
}

/// The table that is subscribed to under this name, from its bytes. Its hosts are read one by one: as
/// messages, all at once, they would take many times the memory of the table.
///
/// # Errors
/// The bytes are no table, or one of another name, or anything in it is bad; the table is named.
pub fn resource(name: &str, bytes: &[u8], notes: &mut Notes) -> Result<RouteTable, Refused> {
    let compiled = Parts::of(bytes).and_then(|Parts { hosts, rest }| {
        let table: route::RouteConfiguration = typed::decode(&rest, notes)?;
        if table.name != name {
            return Err(Refused::new(format!("is {:?} inside", table.name)).under("name"));
        }
        let open = |host: &[u8], notes: &mut Notes| typed::decode(host, notes);
        with_hosts(table, hosts, open, Scope::default(), notes)
    });
    compiled.of("RouteConfiguration", name)
}

/// A table, in the scope of a chain.
///
/// # Errors
/// Anything in it is bad.
pub(super) fn table(
    mut table: route::RouteConfiguration,
    scope: Scope,
    notes: &mut Notes,
) -> Result<RouteTable, Refused> {
    let hosts = std::mem::take(&mut table.virtual_hosts);
    with_hosts(table, hosts, |host, _| Ok(host), scope, notes)
}

/// A table whose hosts are opened one by one.
fn with_hosts<T>(
    table: route::RouteConfiguration,
    hosts: Vec<T>,
    mut open: impl FnMut(T, &mut Notes) -> Result<route::VirtualHost, Refused>,
    mut scope: Scope,
    notes: &mut Notes,
) -> Result<RouteTable, Refused> {
    let route::RouteConfiguration {
        name,
        virtual_hosts: _,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters: _,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: _,
        route_specifiers,
    } = table;
    unserved!(notes, "RouteConfiguration":
        vhds, cluster_specifier_plugins, vhost_header, ignore_path_parameters_in_path_matching,
        route_specifiers);
    if let Some(longest) = plain::number(max_direct_response_body_size_bytes) {
        scope.longest_body = usize::try_from(longest).unwrap_or(usize::MAX);
    }
    scope.mirrors = action::mirrors(request_mirror_policies, notes)?;
    let filters = overrides::of(typed_per_filter_config, &scope, notes)?;
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    let mut domains = Domains::default();
    let hosts = each("virtual_hosts", (0..).zip(hosts), |(index, host)| {
        let host = open(host, notes)?;
        domains.add(&host.domains, index)?;
        virtual_host(host, &scope, &filters, notes).map(Arc::new)
    })?;
    let Domains {
        exact,
        mut suffixes,
        mut prefixes,
        any,
    } = domains;
    for wild in [&mut suffixes, &mut prefixes] {
        wild.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
    }
    Ok(RouteTable {
        name: name.into(),
        hosts,
        exact,
        suffixes,
        prefixes,
        any,
        ignore_port: ignore_port_in_host_matching,
        headers: headers::changes(lists, notes)?.into(),
        internal_only: text::header_names(internal_only_headers, "internal_only_headers")?,
        most_specific_wins: most_specific_header_mutations_wins,
    })
}

/// Domains of hosts, each with the host's place in the table. No domain may stand twice.
#[derive(Default)]
struct Domains {
    exact: HashMap<Box<str>, usize>,
    suffixes: Vec<(Box<str>, usize)>,
    prefixes: Vec<(Box<str>, usize)>,
    any: Option<usize>,
}

impl Domains {
    fn add(&mut self, domains: &[String], host: usize) -> Result<(), Refused> {
        if domains.is_empty() {
            return Err(Refused::new("must not be empty").under("domains"));
        }
        for domain in domains {
            if !self.add_one(&domain.to_ascii_lowercase(), host) {
                let reason = format!("{domain:?} stands in this table twice");
                return Err(Refused::new(reason).under("domains"));
            }
        }
        Ok(())
    }

    /// False where it is there already.
    fn add_one(&mut self, domain: &str, host: usize) -> bool {
        let wild = |list: &mut Vec<(Box<str>, usize)>, part: &str| {
            let new = list.iter().all(|(known, _)| **known != *part);
            list.push((part.into(), host));
            new
        };
        if domain == "*" {
            return self.any.replace(host).is_none();
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            return wild(&mut self.suffixes, suffix);
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            return wild(&mut self.prefixes, prefix);
        }
        self.exact.insert(domain.into(), host).is_none()
    }
}

fn virtual_host(
    host: route::VirtualHost,
    outer: &Scope,
    inherited: &FilterOverrides,
    notes: &mut Notes,
) -> Result<VirtualHost, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let route::VirtualHost {
        name,
        domains: _,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata: _,
        route_specifiers,
    } = host;
    unserved!(notes, "VirtualHost":
        matcher, virtual_clusters, cors, retry_policy_typed_config, hedge_policy,
        include_is_timeout_retry_header, per_request_buffer_limit_bytes, request_body_buffer_limit,
        route_specifiers);
    if name.is_empty() {
        return Err(Refused::new("must not be empty").under("name"));
    }
    let mirrors = action::mirrors(request_mirror_policies, notes)?;
    let scope = Scope {
        requirements: outer.requirements.clone(),
        mirrors: match mirrors.is_empty() {
            true => outer.mirrors.clone(),
            false => mirrors,
        },
        longest_body: outer.longest_body,
        alike: outer.alike.clone(),
    };
    let own = overrides::of(typed_per_filter_config, &scope, notes)?;
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    Ok(VirtualHost {
        name: name.into(),
        routes: each("routes", routes, |one| {
            self::one(one, &scope, notes).map(Arc::new)
        })?,
        headers: headers::changes(lists, notes)?.into(),
        limits: rate_limit::on_routes(rate_limits, notes)?.into(),
        retry: match retry_policy {
            None => None,
            Some(policy) => Some(scope.alike.retry(policy, notes).at("retry_policy")?),
        },
        require_tls: tls(require_tls)?,
        attempt_count_in_request: include_request_attempt_count,
        attempt_count_in_response: include_attempt_count_in_response,
        filters: overrides::inherit(own, inherited).into(),
    })
}

fn tls(require: i32) -> Result<bool, Refused> {
    use route::virtual_host::TlsRequirementType as Require;

    match Require::try_from(require) {
        Ok(Require::None) => Ok(false),
        Ok(Require::All) => Ok(true),
        Ok(Require::ExternalOnly) | Err(_) => {
            let reason = "TLS is required of all or of none";
            Err(Refused::new(reason).under("require_tls"))
        }
    }
}

fn one(one: route::Route, scope: &Scope, notes: &mut Notes) -> Result<Route, Refused> {
    use route::route::Action;

    #[expect(deprecated, reason = "every field is decided about")]
    let route::Route {
        name,
        r#match,
        metadata: _,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix: _,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = one;
    unserved!(notes, "Route":
        per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers);
    let action = match need(action, "route")? {
        Action::Route(forward) => {
            let forward = action::forward(forward, scope, notes).at("route")?;
            RouteAction::Forward(Box::new(forward))
        }
        Action::Redirect(redirect) => {
            RouteAction::Redirect(Box::new(answer::redirect(redirect).at("redirect")?))
        }
        Action::DirectResponse(direct) => {
            answer::direct(direct, scope, notes).at("direct_response")?
        }
        Action::FilterAction(_) => {
            let reason = "no filter answers in place of the route";
            return Err(Refused::new(reason).under("filter_action"));
        }
        Action::NonForwardingAction(_) => {
            let reason = "it is for gRPC clients, not for proxies";
            return Err(Refused::new(reason).under("non_forwarding_action"));
        }
    };
    let lists = Lists {
        request_add: request_headers_to_add,
        request_remove: request_headers_to_remove,
        response_add: response_headers_to_add,
        response_remove: response_headers_to_remove,
    };
    Ok(Route {
        name: name.into(),
        matches: matches::compile(need(r#match, "match")?, notes).at("match")?,
        action,
        headers: headers::changes(lists, notes)?.into(),
        filters: overrides::of(typed_per_filter_config, scope, notes)?.into(),
        operation: decorator.map(|decorator| {
            let route::Decorator {
                operation,
                propagate: _,
            } = decorator;
            operation.into()
        }),
        tracing: match tracing {
            None => None,
            Some(tracing) => Some(tracing::on_route(tracing, notes).at("tracing")?.into()),
        },
    })
}

#[cfg(test)]
mod tests;
