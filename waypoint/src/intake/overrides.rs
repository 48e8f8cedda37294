//! What filters do differently on a table, host, route or weighted cluster (`typed_per_filter_config`)
//! → [`model::route::FilterOverrides`](crate::model::route::FilterOverrides).

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::envoy::extensions::filters::http as filters;
use envoy_types::pb::google::protobuf::Any;

use super::error::{At as _, Refused, need};
use super::route::Scope;
use super::served::Notes;
use super::{authz, filters as compile, rate_limit, rbac, typed};
use crate::model::http::{Cors, Fault};
use crate::model::rate_limit::RateLimit;
use crate::model::route::FilterOverrides;
use crate::model::text::Fraction;

/// What filters do differently, by the filters' names.
///
/// # Errors
/// One can't be compiled, or is of a filter that isn't served.
pub(super) fn of(
    configs: HashMap<String, Any>,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<FilterOverrides, Refused> {
    let mut overrides = FilterOverrides::default();
    let mut configs: Vec<_> = configs.into_iter().collect();
    configs.sort_by(|left, right| left.0.cmp(&right.0));
    for (name, config) in configs {
        one(&name, &config, &mut overrides, scope, notes)
            .key(&name)
            .at("typed_per_filter_config")?;
    }
    Ok(overrides)
}

/// What a host has, with what the table has where it has nothing.
pub(super) fn inherit(own: FilterOverrides, outer: &FilterOverrides) -> FilterOverrides {
    let FilterOverrides {
        fault,
        cors,
        rbac,
        jwt,
        rate_limit,
        authz,
        session,
    } = own;
    FilterOverrides {
        fault: fault.or_else(|| outer.fault.clone()),
        cors: cors.or_else(|| outer.cors.clone()),
        rbac: rbac.or_else(|| outer.rbac.clone()),
        jwt: jwt.or_else(|| outer.jwt.clone()),
        rate_limit: rate_limit.or_else(|| outer.rate_limit.clone()),
        authz: authz.or_else(|| outer.authz.clone()),
        session: session.or_else(|| outer.session.clone()),
    }
}

fn one(
    name: &str,
    config: &Any,
    overrides: &mut FilterOverrides,
    scope: &Scope,
    notes: &mut Notes,
) -> Result<(), Refused> {
    match typed::open(config)?.name.as_str() {
        "envoy.config.route.v3.FilterConfig" => {
            let FilterConfig {
                config,
                is_optional,
                disabled,
            } = typed::unpack_whole(config)?;
            if disabled {
                return self::disabled(name, overrides, notes);
            }
            let config = need(config, "config")?;
            let inner = one(name, &config, overrides, scope, notes).at("config");
            match inner {
                Err(refused) if is_optional && !served(&config) => {
                    notes.count(typed::name(&config), &refused.reason);
                    Ok(())
                }
                inner => inner,
            }
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let fault = compile::fault(typed::unpack(config, notes)?, notes)?;
            overrides.fault = Some(Arc::new(fault));
            Ok(())
        }
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
            let cors = compile::cors(typed::unpack_whole(config)?, notes)?;
            overrides.cors = Some(Arc::new(cors));
            Ok(())
        }
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
            let filters::rbac::v3::RbacPerRoute { rbac } = typed::unpack_whole(config)?;
            let rbac = rbac.map(|rbac| rbac::http(rbac, notes).map(Arc::new));
            overrides.rbac = Some(rbac.transpose().at("rbac")?);
            Ok(())
        }
        "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig" => {
            overrides.jwt = Some(jwt(typed::unpack_whole(config)?, scope)?);
            Ok(())
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            overrides.rate_limit = Some(Arc::new(rate_limit::of(config, notes)?));
            Ok(())
        }
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute" => {
            let route = authz::on_route(typed::unpack_whole(config)?, notes)?;
            overrides.authz = Some(route.map(Arc::new));
            Ok(())
        }
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute" => {
            use filters::stateful_session::v3::stateful_session_per_route::Override;

            let filters::stateful_session::v3::StatefulSessionPerRoute { r#override } =
                typed::unpack(config, notes)?;
            overrides.session = match need(r#override, "stateful_session")? {
                Override::StatefulSession(session) => super::session::of(session, notes)
                    .at("stateful_session")?
                    .map(Arc::new),
                Override::Disabled(_) => return self::disabled(name, overrides, notes),
            };
            Ok(())
        }
        other => Err(Refused::new(format!(
            "{other} is of a filter that isn't served"
        ))),
    }
}

/// Whether it is of a filter that is served.
fn served(config: &Any) -> bool {
    let name = typed::name(config);
    let known = [
        "fault",
        "cors",
        "rbac",
        "jwt_authn",
        "ext_authz",
        "local_ratelimit",
        "stateful_session",
    ];
    known.iter().any(|filter| {
        name.strip_prefix("envoy.extensions.filters.http.")
            .is_some_and(|rest| rest.split('.').next() == Some(filter))
    })
}

/// A filter that is switched off by its name.
fn disabled(name: &str, overrides: &mut FilterOverrides, notes: &mut Notes) -> Result<(), Refused> {
    match name {
        "envoy.filters.http.fault" => overrides.fault = Some(Arc::new(Fault::default())),
        "envoy.filters.http.cors" => overrides.cors = Some(Arc::new(no_cors())),
        "envoy.filters.http.rbac" => overrides.rbac = Some(None),
        "envoy.filters.http.local_ratelimit" => {
            overrides.rate_limit = Some(Arc::new(RateLimit::off()));
        }
        "envoy.filters.http.ext_authz" => overrides.authz = Some(None),
        "envoy.filters.http.jwt_authn" => overrides.jwt = Some(None),
        "envoy.filters.http.stateful_session" => notes.count(
            "StatefulSessionPerRoute.disabled",
            "the filter's own session applies, which istiod never gives it",
        ),
        // A filter of which there is nothing to switch off.
        other => notes.count(
            format!("FilterConfig.disabled of {other}"),
            "there is no filter of this name to switch off",
        ),
    }
    Ok(())
}

fn no_cors() -> Cors {
    Cors {
        origins: Vec::new(),
        methods: "".into(),
        headers: "".into(),
        expose: "".into(),
        max_age: "".into(),
        credentials: false,
        private_network: false,
        enabled: Fraction::NEVER,
        forward_unmatched: true,
    }
}

fn jwt(
    config: filters::jwt_authn::v3::PerRouteConfig,
    scope: &Scope,
) -> Result<Option<Arc<crate::model::jwt::Requirement>>, Refused> {
    use filters::jwt_authn::v3::per_route_config::RequirementSpecifier;

    let filters::jwt_authn::v3::PerRouteConfig {
        requirement_specifier,
    } = config;
    match need(requirement_specifier, "requirement_name")? {
        RequirementSpecifier::Disabled(true) => Ok(None),
        RequirementSpecifier::Disabled(false) => {
            Err(Refused::new("must be true").under("disabled"))
        }
        RequirementSpecifier::RequirementName(name) => {
            let mut named = scope.requirements.iter();
            match named.find(|(known, _)| **known == *name) {
                Some((_, requirement)) => Ok(Some(Arc::new(requirement.clone()))),
                None => {
                    let reason = format!("the jwt_authn filter has no requirement {name:?}");
                    Err(Refused::new(reason).under("requirement_name"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
