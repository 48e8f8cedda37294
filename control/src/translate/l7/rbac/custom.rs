//! CUSTOM: a service decides about what a policy's rules match. The rules are shadow rules, which
//! decide nothing; the filter behind them asks where one of them matched. Where nobody can be asked,
//! what they match is denied.
//! (istio/istio, `pilot/pkg/security/authz/builder`: `builder.go`, `extauthz.go`)

mod ask;

use std::collections::{BTreeMap, HashMap};

use super::super::api::{any, hcm, http_filter, listener, network_filter, rbac};
use super::super::view::{Target, View};
use super::{Built, attached, http_rules, network_rules, of_rules};
use crate::objects::Kind;
use crate::objects::authorization_policy::AuthorizationPolicy;
use crate::objects::mesh_config::{Common, Provider};

use rbac::rbac::Action;

/// What the shadow rules write down, and the filter reads.
const RESULTS: &str = "istio_ext_authz_";
/// At the end of the name of a rule that denies because nobody can be asked.
const NOBODY: &str = "-deny-due-to-bad-CUSTOM-action";

/// For HTTP: the rules and the filter of each provider.
pub(in super::super) fn http(view: &View<'_>, service: Option<&Target>) -> Vec<hcm::HttpFilter> {
    let mut filters = Vec::new();
    for (name, asked) in by_provider(view, service, false) {
        filters.push(http_rules(asked.rules()));
        if let Ok(provider) = asked.who {
            let asks = any(&ask::about_requests(name, provider));
            filters.push(http_filter("envoy.filters.http.ext_authz", asks));
        }
    }
    filters
}

/// For opaque connections.
pub(in super::super) fn network(
    view: &View<'_>,
    service: Option<&Target>,
) -> Vec<listener::Filter> {
    let mut filters = Vec::new();
    for (name, asked) in by_provider(view, service, true) {
        filters.push(network_rules(asked.rules()));
        if let Ok(provider) = asked.who {
            let asks = any(&ask::about_connections(name, provider.common()));
            filters.push(network_filter("envoy.filters.network.ext_authz", asks));
        }
    }
    filters
}

/// Who is asked, or why nobody is, and about what.
struct Asked<'a> {
    who: Result<&'a Provider, String>,
    about: HashMap<String, rbac::Policy>,
}

impl Asked<'_> {
    fn rules(&self) -> Built {
        let about = self.about.clone().into_iter();
        let rules = |policies| rbac::Rbac {
            action: Action::Deny.into(),
            policies,
            ..Default::default()
        };
        match self.who {
            Ok(_) => Built {
                prefix: RESULTS.to_owned(),
                rules: None,
                shadow: Some(rules(about.collect())),
            },
            Err(_) => Built {
                prefix: String::new(),
                rules: Some(rules(
                    about.map(|(rule, what)| (rule + NOBODY, what)).collect(),
                )),
                shadow: None,
            },
        }
    }
}

fn by_provider<'a>(
    view: &'a View<'_>,
    service: Option<&Target>,
    tcp: bool,
) -> BTreeMap<&'a str, Asked<'a>> {
    let mut all: BTreeMap<&str, Asked<'_>> = BTreeMap::new();
    // Nobody calls pods through a waypoint that serves none: what would be denied there is no news.
    let told = service.is_some() || !view.pods.is_empty();
    for policy in attached(view, service) {
        let Ok(spec) = &policy.spec else { continue };
        let Some(name) = spec.asks() else { continue };
        let key = &policy.source.key;
        let asked = all.entry(name).or_insert_with(|| Asked {
            who: who(view, name, tcp),
            about: HashMap::new(),
        });
        if let Err(why) = &asked.who
            && told
        {
            let problem =
                format!("action CUSTOM, provider {name:?}: {why}; what its rules match is denied");
            view.problem(Kind::AuthorizationPolicy, key, problem);
        }
        let rules = of_rules(view, key, spec, Action::Deny, tcp, |rule| {
            format!(
                "istio-ext-authz-{name}-ns[{}]-policy[{}]-rule[{rule}]",
                key.namespace, key.name
            )
        });
        asked.about.extend(rules);
    }
    all
}

/// Who is asked, or why nobody can be.
fn who<'a>(view: &'a View<'_>, name: &str, tcp: bool) -> Result<&'a Provider, String> {
    let Some(provider) = view.mesh.providers.get(name) else {
        return Err(format!(
            "the mesh configuration (ConfigMap {}/istio) has no such extension provider for authorization",
            view.mesh.root_namespace
        ));
    };
    let common = provider.common();
    match provider {
        _ if !is_there(view, common) => Err(format!(
            "no service {} with port {} is known",
            common.host(),
            common.port
        )),
        Provider::Http(_) if tcp => Err(
            "it is asked over HTTP, which has no words for opaque connections: only one with \
             envoyExtAuthzGrpc is asked about those"
                .to_owned(),
        ),
        _ => Ok(provider),
    }
}

/// The services that policies ask here, by host name and port.
pub(in super::super) fn asked(view: &View<'_>) -> Vec<(String, u16)> {
    let policies = view.policies.authorization.iter();
    let mut asked: Vec<(String, u16)> = policies
        .filter_map(|(policy, _)| common(view, policy))
        .map(|common| (common.host().to_owned(), common.port))
        .collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// What a policy asks, where it is known and its service is there.
fn common<'a>(view: &'a View<'_>, policy: &AuthorizationPolicy) -> Option<&'a Common> {
    let name = policy.spec.as_ref().ok()?.asks()?;
    let common = view.mesh.providers.get(name)?.common();
    is_there(view, common).then_some(common)
}

fn is_there(view: &View<'_>, common: &Common) -> bool {
    let target = (view.lookup)(common.host());
    target.is_some_and(|target| target.ports.iter().any(|port| port.number == common.port))
}
