//! Envoy's `jwt_authn` → [`model::jwt`](crate::model::jwt). A provider that can't be compiled in
//! full refuses the resource: half a check of tokens is none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use envoy_types::pb::google::protobuf as google;

use super::error::{At as _, Refused, each, each_keyed, need};
use super::served::Notes;
use super::{matches, plain, text};
use crate::jwt::keys;
use crate::model::jwt::{JwtAuthn, JwtRule, KeySource, Provider, Requirement, TokenPlace};
use crate::unserved;

/// How far clocks may differ, and how long fetched keys are used, where Envoy's defaults apply.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
const CACHE: Duration = Duration::from_secs(600);

/// How deep requirements may stand inside each other.
const DEPTH: usize = 16;

/// The filter.
///
/// # Errors
/// A provider, requirement or rule of it can't be compiled.
pub(super) fn filter(
    filter: jwt::JwtAuthentication,
    notes: &mut Notes,
) -> Result<JwtAuthn, Refused> {
    let jwt::JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix: _,
    } = filter;
    unserved!(notes, "JwtAuthentication": filter_state_rules, strip_failure_response);
    let mut providers: Vec<_> = providers.into_iter().collect();
    providers.sort_by(|left, right| left.0.cmp(&right.0));
    let names: Names = (0..)
        .zip(&providers)
        .map(|(index, (name, _))| (name.clone(), index))
        .collect();
    let providers = each_keyed("providers", providers, |name, provider| {
        self::provider(name, provider, notes).map(Arc::new)
    })?;
    let named = each_keyed("requirement_map", requirement_map, |name, requirement| {
        let compiled = self::requirement(requirement, &names, 0)?;
        Ok((Box::from(name), compiled))
    })?;
    let rules = each("rules", rules, |rule| {
        self::rule(rule, &names, &named, notes)
    })?;
    Ok(JwtAuthn {
        providers,
        rules,
        named,
        bypass_cors_preflight,
    })
}

/// Providers' places in the list, by name.
type Names = HashMap<String, usize>;

fn rule(
    rule: jwt::RequirementRule,
    names: &Names,
    named: &[(Box<str>, Requirement)],
    notes: &mut Notes,
) -> Result<JwtRule, Refused> {
    use jwt::requirement_rule::RequirementType;

    let jwt::RequirementRule {
        r#match,
        requirement_type,
    } = rule;
    Ok(JwtRule {
        matches: matches::compile(need(r#match, "match")?, notes).at("match")?,
        requires: match requirement_type {
            None => Requirement::Nothing,
            Some(RequirementType::Requires(requirement)) => {
                self::requirement(requirement, names, 0).at("requires")?
            }
            Some(RequirementType::RequirementName(name)) => {
                let found = named.iter().find(|(known, _)| **known == *name);
                let (_, requirement) = found.ok_or_else(|| {
                    let reason = format!("there is no requirement {name:?}");
                    Refused::new(reason).under("requirement_name")
                })?;
                requirement.clone()
            }
        },
    })
}

fn requirement(
    requirement: jwt::JwtRequirement,
    names: &Names,
    depth: usize,
) -> Result<Requirement, Refused> {
    use jwt::jwt_requirement::RequiresType;

    if depth >= DEPTH {
        return Err(Refused::new(format!(
            "requirements are more than {DEPTH} deep"
        )));
    }
    let known = |name: &str| {
        names.get(name).copied().ok_or_else(|| {
            let reason = format!("there is no provider {name:?}");
            Refused::new(reason).under("provider_name")
        })
    };
    let list = |list: Vec<jwt::JwtRequirement>| {
        if list.len() < 2 {
            return Err(Refused::new("needs two at least").under("requirements"));
        }
        each("requirements", list, |one| {
            self::requirement(one, names, depth + 1)
        })
    };
    Ok(match requirement.requires_type {
        None => Requirement::Nothing,
        Some(RequiresType::ProviderName(name)) => Requirement::Provider(known(&name)?, Vec::new()),
        Some(RequiresType::ProviderAndAudiences(jwt::ProviderWithAudiences {
            provider_name,
            audiences,
        })) => {
            let provider = known(&provider_name).at("provider_and_audiences")?;
            Requirement::Provider(provider, audiences.into_iter().map(Into::into).collect())
        }
        Some(RequiresType::RequiresAny(jwt::JwtRequirementOrList { requirements })) => {
            Requirement::Any(list(requirements).at("requires_any")?)
        }
        Some(RequiresType::RequiresAll(jwt::JwtRequirementAndList { requirements })) => {
            Requirement::All(list(requirements).at("requires_all")?)
        }
        Some(RequiresType::AllowMissing(google::Empty {})) => Requirement::AllowMissing,
        Some(RequiresType::AllowMissingOrFailed(google::Empty {})) => {
            Requirement::AllowMissingOrFailed
        }
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            let reason = "claims of a token that nobody checked aren't believed";
            return Err(Refused::new(reason).under("extract_only_without_validation"));
        }
    })
}

fn provider(
    name: &str,
    provider: jwt::JwtProvider,
    notes: &mut Notes,
) -> Result<Provider, Refused> {
    let jwt::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = provider;
    unserved!(notes, "JwtProvider": failed_status_in_metadata, jwt_cache_config);
    let jwt::jwt_provider::NormalizePayload {
        space_delimited_claims,
    } = normalize_payload_in_metadata.unwrap_or_default();
    let some = |text: String| Some(text).filter(|text| !text.is_empty()).map(Into::into);
    let texts = |list: Vec<String>| list.into_iter().map(Into::into).collect();
    Ok(Provider {
        name: name.into(),
        issuer: issuer.into(),
        audiences: texts(audiences),
        subject: subjects.map(text::string).transpose().at("subjects")?,
        require_expiration,
        max_lifetime: plain::maybe_duration(max_lifetime, "max_lifetime")?,
        clock_skew: match clock_skew_seconds {
            0 => CLOCK_SKEW,
            seconds => Duration::from_secs(seconds.into()),
        },
        keys: key_source(need(jwks_source_specifier, "local_jwks")?, notes)?,
        from: places(from_headers, from_params, from_cookies)?,
        forward,
        payload_header: match forward_payload_header.as_str() {
            "" => None,
            name => Some(plain::header_name(name).at("forward_payload_header")?),
        },
        pad_payload_header: pad_forward_payload_header,
        claim_headers: each("claim_to_headers", claim_to_headers, claim)?,
        payload_key: some(payload_in_metadata),
        header_key: some(header_in_metadata),
        space_delimited: texts(space_delimited_claims),
        clear_route_cache,
    })
}

fn key_source(
    source: jwt::jwt_provider::JwksSourceSpecifier,
    notes: &mut Notes,
) -> Result<KeySource, Refused> {
    use jwt::jwt_provider::JwksSourceSpecifier;

    match source {
        JwksSourceSpecifier::LocalJwks(source) => {
            let text = plain::text(source).at("local_jwks")?;
            let (set, passed_over) = keys::parse(text.as_bytes())
                .map_err(|error| Refused::new(error.to_string()).under("local_jwks"))?;
            for why in passed_over {
                notes.count(format!("JWKS key: {why}"), "Envoy passes it over too");
            }
            Ok(KeySource::Inline(set))
        }
        JwksSourceSpecifier::RemoteJwks(remote) => self::remote(remote, notes).at("remote_jwks"),
    }
}

fn remote(remote: jwt::RemoteJwks, notes: &mut Notes) -> Result<KeySource, Refused> {
    let jwt::RemoteJwks {
        http_uri,
        cache_duration,
        async_fetch,
        retry_policy,
    } = remote;
    unserved!(notes, "RemoteJwks": async_fetch, retry_policy);
    let core::HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = need(http_uri, "http_uri")?;
    uri.parse::<http::Uri>()
        .map_err(|_| Refused::new(format!("{uri:?} is no URI")).under("http_uri.uri"))?;
    let core::http_uri::HttpUpstreamType::Cluster(cluster) =
        need(http_upstream_type, "http_uri.cluster")?;
    if cluster.is_empty() {
        return Err(Refused::new("must not be empty").under("http_uri.cluster"));
    }
    let timeout = plain::duration(need(timeout, "http_uri.timeout")?).at("http_uri.timeout")?;
    Ok(KeySource::Remote {
        uri: uri.into(),
        cluster: cluster.into(),
        timeout,
        cache: plain::maybe_duration(cache_duration, "cache_duration")?.unwrap_or(CACHE),
    })
}

fn places(
    headers: Vec<jwt::JwtHeader>,
    parameters: Vec<String>,
    cookies: Vec<String>,
) -> Result<Vec<TokenPlace>, Refused> {
    let mut places = each("from_headers", headers, |header| {
        let jwt::JwtHeader { name, value_prefix } = header;
        let name = plain::header_name(&name).at("name")?;
        Ok(TokenPlace::Header(name, value_prefix.into()))
    })?;
    let named = |name: String| match name.is_empty() {
        true => Err(Refused::new("must not be empty")),
        false => Ok(name.into()),
    };
    places.extend(each("from_params", parameters, |name| {
        named(name).map(TokenPlace::Query)
    })?);
    places.extend(each("from_cookies", cookies, |name| {
        named(name).map(TokenPlace::Cookie)
    })?);
    Ok(places)
}

fn claim(claim: jwt::JwtClaimToHeader) -> Result<(http::HeaderName, Box<str>), Refused> {
    let jwt::JwtClaimToHeader {
        header_name,
        claim_name,
        claim_path,
    } = claim;
    let header = plain::header_name(&header_name).at("header_name")?;
    let path = each("claim_path", claim_path, |segment| {
        let jwt::jwt_claim_to_header::PathSegment { key } = segment;
        match key.contains('.') {
            true => Err(Refused::new(format!("{key:?}: a dot leads into an object"))),
            false => Ok(key),
        }
    })?;
    let name = match path.is_empty() {
        true => claim_name,
        false => path.join("."),
    };
    match name.is_empty() {
        true => Err(Refused::new("must not be empty").under("claim_name")),
        false => Ok((header, name.into())),
    }
}

#[cfg(test)]
mod tests;
