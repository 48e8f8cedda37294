//! RequestAuthentication → the filter that verifies tokens: a missing one passes, a wrong one is 401.
//! (istio/istio, `pilot/pkg/security/authn/policy_applier.go`)

use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use std::collections::BTreeSet;

use super::api::{Empty, any, hcm, http_filter, inline, route};
use super::rbac::attaches;
use super::view::{Target, View};
use crate::objects::request_authentication::JwtRule;
use crate::objects::{Key, Kind};

/// A key whose other half was thrown away when it was made: every token of its issuer is wrong. (Envoy
/// refuses a set without any key.)
const NO_KEYS: &str = r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"iQlE2Q3VxIbyRuBNBPwGMCzmk9aLE1zhpzt54Ak-AiG_Ac74KKckOWCIGx-nGwUSU4EABJXGnzxEnmzgf8YiZnI6WvU7HOFVmZywzB8c_Ra0emDUgW5DEBPPACs9yAtoQuBw0T7TndBrN_ROB6YE9SpQiNMKE8mbrhCG-qF2GYl8Y9VuRxCrdTkdIEqco82eDjzX-5vYX_oG9wHLm82VP40O-lqhnKpSdxhSIsi03bzhX9I5uzwfoL3Raff8_9BxC16kye79mO-lVZb3H6N87g26jnRxS8H99jPSoFdHYrW05uPRrOY0XLnSCYti81XIdU0_NtiPUTerQw_b0FdX2w"}]}"#;

/// The filter, if a policy is attached.
pub(super) fn filter(view: &View<'_>, service: Option<&Target>) -> Option<hcm::HttpFilter> {
    let attached = view
        .policies
        .authentication
        .iter()
        .filter(|(key, policy)| attaches(view, service, key, &policy.targets()));
    let mut rules: Vec<(&Key, &JwtRule)> = attached
        .flat_map(|(key, policy)| policy.jwt_rules.iter().map(move |rule| (key, rule)))
        .collect();
    // Providers are numbered: their order must not depend on that of the events.
    rules.sort_by(|(_, a), (_, b)| a.issuer.cmp(&b.issuer));
    if rules.is_empty() {
        return None;
    }
    let mut filter = jwt::JwtAuthentication {
        bypass_cors_preflight: true,
        ..Default::default()
    };
    let (mut each, mut any_of) = (Vec::new(), Vec::new());
    for (number, (key, rule)) in rules.into_iter().enumerate() {
        let name = format!("origins-{number}");
        filter
            .providers
            .insert(name.clone(), provider(view, key, rule));
        each.push(any_requirement(vec![
            requirement(jwt::jwt_requirement::RequiresType::ProviderName(
                name.clone(),
            )),
            requirement(jwt::jwt_requirement::RequiresType::AllowMissing(Empty {})),
        ]));
        any_of.push(requirement(
            jwt::jwt_requirement::RequiresType::ProviderName(name),
        ));
    }
    let requires = if each.len() == 1 {
        each.remove(0)
    } else {
        // One good token is enough where several issuers share a place; otherwise each that is
        // there must be good.
        any_of.push(requirement(
            jwt::jwt_requirement::RequiresType::RequiresAll(jwt::JwtRequirementAndList {
                requirements: each,
            }),
        ));
        any_requirement(any_of)
    };
    filter.rules = vec![jwt::RequirementRule {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(requires)),
    }];
    Some(http_filter("envoy.filters.http.jwt_authn", any(&filter)))
}

fn provider(view: &View<'_>, key: &Key, rule: &JwtRule) -> jwt::JwtProvider {
    let fetched = if rule.jwks.is_empty() {
        Some((view.keys)(rule))
    } else {
        None
    };
    let missing = |why: &str| {
        let from = if rule.jwks_uri.is_empty() {
            "its OpenID configuration"
        } else {
            &rule.jwks_uri
        };
        let problem = format!(
            "jwtRules: the keys of issuer {:?} have not been fetched yet from {from} ({why}): until then every token of it is refused",
            rule.issuer
        );
        view.problem(Kind::RequestAuthentication, key, problem);
        NO_KEYS
    };
    let keys = match &fetched {
        None => &rule.jwks,
        Some(Some(Ok(keys))) => &**keys,
        Some(Some(Err(why))) => missing(why),
        Some(None) => missing("it is being asked"),
    };
    let mut spaced: BTreeSet<String> = rule.space_delimited_claims.iter().cloned().collect();
    spaced.extend(["permission".to_owned(), "scope".to_owned()]);
    let headers = rule.from_headers.iter().map(|header| jwt::JwtHeader {
        name: header.name.clone(),
        value_prefix: header.prefix.clone(),
    });
    let claims = rule
        .output_claim_to_headers
        .iter()
        .map(|to| jwt::JwtClaimToHeader {
            header_name: to.header.clone(),
            claim_name: to.claim.clone(),
            ..Default::default()
        });
    jwt::JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: "payload".to_owned(),
        normalize_payload_in_metadata: Some(jwt::jwt_provider::NormalizePayload {
            space_delimited_claims: spaced.into_iter().collect(),
        }),
        clear_route_cache: true,
        from_headers: headers.collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        claim_to_headers: claims.collect(),
        jwks_source_specifier: Some(jwt::jwt_provider::JwksSourceSpecifier::LocalJwks(inline(
            keys,
        ))),
        ..Default::default()
    }
}

fn requirement(kind: jwt::jwt_requirement::RequiresType) -> jwt::JwtRequirement {
    jwt::JwtRequirement {
        requires_type: Some(kind),
    }
}

fn any_requirement(requirements: Vec<jwt::JwtRequirement>) -> jwt::JwtRequirement {
    requirement(jwt::jwt_requirement::RequiresType::RequiresAny(
        jwt::JwtRequirementOrList { requirements },
    ))
}
