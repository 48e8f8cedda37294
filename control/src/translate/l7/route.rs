//! The routes of a service's port: its VirtualServices (and what routes of the Gateway API come to),
//! in order, or one route to the service itself. (istio/istio, `pilot/pkg/networking/core/route`)

mod action;
mod filter;
mod headers;
mod matches;
mod retry;

use super::api::{UInt32Value, core, metadata, number, object, route, text, truth};
use super::gateway_route::exactness;
use super::view::{Found, Hosted, Protocol, Target, TargetPort, View, inbound, outbound, parts};
use crate::objects::Kind;
use crate::objects::virtual_service::{Destination, HttpMatch, HttpRoute};

pub(super) use matches::escaped;

/// What a direct response may hold.
const DIRECT_RESPONSE_LIMIT: u32 = 1 << 20;

/// For a service's port.
pub(super) fn of_port(
    view: &View<'_>,
    service: &Target,
    port: &TargetPort,
) -> route::RouteConfiguration {
    let own = inbound(port.number, "http", &service.host);
    let mut routes = Vec::new();
    for group in groups(view.routes_of(service)) {
        routes.extend(of_group(view, &group, port.number));
    }
    if !routes.is_empty() {
        return only(service, configuration(&own, port.number, routes));
    }
    let operation = format!("{}:{}/*", service.host, port.number);
    let mut default = default_route(&own, &operation);
    if let Some(route::route::Action::Route(action)) = &mut default.action
        && let Some(hash) = action::hash(
            view,
            &Destination {
                host: service.host.clone(),
                ..Destination::default()
            },
            port.number,
        )
    {
        action.hash_policy = vec![hash];
    }
    let mut configuration = configuration(&own, port.number, vec![default]);
    configuration.max_direct_response_body_size_bytes = number(DIRECT_RESPONSE_LIMIT);
    only(service, configuration)
}

/// Where the request's host decides where it goes, no other host is let through.
fn only(
    service: &Target,
    mut configuration: route::RouteConfiguration,
) -> route::RouteConfiguration {
    if service.found == Found::ByRequest {
        for host in &mut configuration.virtual_hosts {
            host.domains = vec![service.host.clone()];
        }
    }
    configuration
}

/// For pods themselves.
pub(super) fn direct() -> route::RouteConfiguration {
    let mut configuration = configuration("encap", 0, vec![default_route("encap", ":0/*")]);
    configuration.max_direct_response_body_size_bytes = number(DIRECT_RESPONSE_LIMIT);
    configuration
}

fn configuration(name: &str, port: u16, routes: Vec<route::Route>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![route::VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".to_owned()],
            routes,
            ..Default::default()
        }],
        validate_clusters: truth(false),
        ..Default::default()
    }
}

fn default_route(cluster: &str, operation: &str) -> route::Route {
    let mut action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(
            cluster.to_owned(),
        )),
        retry_policy: retry::retries(None, false),
        ..Default::default()
    };
    action::set_timeout(&mut action, None);
    route::Route {
        name: "default".to_owned(),
        r#match: Some(matches::everything()),
        decorator: Some(route::Decorator {
            operation: operation.to_owned(),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

/// Routes that are asked together, each with its object.
struct Group<'a> {
    /// Of which kind and namespace, where all objects of both are.
    shared: Option<(Kind, &'a str)>,
    routes: Vec<(&'a Hosted, &'a HttpRoute)>,
}

/// The routes of objects, the oldest object first. Those of the Gateway API speak of the service
/// together: the most exact comes first, whichever of them it is in.
fn groups(all: Vec<&Hosted>) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for hosted in all {
        let shared = matches!(hosted.kind, Kind::HttpRoute | Kind::GrpcRoute)
            .then_some((hosted.kind, &*hosted.key.namespace));
        let routes = hosted.spec.http.iter().map(|http| (hosted, http));
        let mut known = groups.iter_mut();
        match known.find(|group| group.shared.is_some() && group.shared == shared) {
            Some(group) => group.routes.extend(routes),
            None => groups.push(Group {
                shared,
                routes: routes.collect(),
            }),
        }
    }
    for group in groups.iter_mut().filter(|group| group.shared.is_some()) {
        let routes = &mut group.routes;
        routes.sort_by_key(|(_, http)| std::cmp::Reverse(exactness(http)));
    }
    groups
}

/// The routes of a group on one port, until one of them matches everything.
fn of_group(view: &View<'_>, group: &Group<'_>, port: u16) -> Vec<route::Route> {
    let mut routes = Vec::new();
    for (hosted, http) in &group.routes {
        if http.r#match.is_empty() {
            routes.extend(one(view, hosted, http, None, port));
            return routes;
        }
        for found in &http.r#match {
            let made = one(view, hosted, http, Some(found), port);
            let last = made.as_ref().is_some_and(matches::is_everything);
            routes.extend(made);
            if last {
                return routes;
            }
        }
    }
    routes
}

fn one(
    view: &View<'_>,
    hosted: &Hosted,
    http: &HttpRoute,
    found: Option<&HttpMatch>,
    port: u16,
) -> Option<route::Route> {
    let gateway_api = hosted.kind != Kind::VirtualService;
    if let Some(found) = found {
        let mesh = found.gateways.is_empty() || found.gateways.iter().any(|name| name == "mesh");
        if !mesh || found.port.is_some_and(|only| only != u32::from(port)) {
            return None;
        }
    }
    let name = match found
        .map(|found| found.name.as_str())
        .filter(|name| !name.is_empty())
    {
        Some(of_match) => format!("{}.{of_match}", http.name),
        None => http.name.clone(),
    };
    let mut made = route::Route {
        name,
        r#match: Some(match matches::of(found, gateway_api) {
            Ok(made) => made,
            Err(problem) => {
                view.problem(hosted.kind, &hosted.key, problem);
                return None;
            }
        }),
        metadata: Some(metadata([(
            "istio".to_owned(),
            object([("config", text(config_path(hosted)))]),
        )])),
        stat_prefix: found
            .map(|found| found.stat_prefix.clone())
            .unwrap_or_default(),
        ..Default::default()
    };
    if let Err(problem) = action::apply(view, hosted, http, port, &mut made) {
        view.problem(hosted.kind, &hosted.key, problem);
        return None;
    }
    made.decorator = Some(route::Decorator {
        operation: operation(&made, &object_name(hosted), port),
        ..Default::default()
    });
    Some(made)
}

/// A route of the Gateway API goes, as in istiod, under the name of the service it is for.
fn object_name(hosted: &Hosted) -> String {
    match (hosted.kind, hosted.spec.hosts.first()) {
        (Kind::VirtualService, _) | (_, None) => hosted.key.name.to_string(),
        (_, Some(host)) => format!("{}~{host}", hosted.key.namespace),
    }
}

/// Where the object is, for tools.
fn config_path(hosted: &Hosted) -> String {
    let name = object_name(hosted);
    format!(
        "/apis/networking.istio.io/v1/namespaces/{}/virtual-service/{name}",
        hosted.key.namespace
    )
}

/// `host:port/path` of the one destination, or the object's name.
fn operation(made: &route::Route, object: &str, port: u16) -> String {
    use route::route_match::PathSpecifier;
    let path = match made
        .r#match
        .as_ref()
        .and_then(|found| found.path_specifier.as_ref())
    {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &made.action {
        Some(route::route::Action::Route(action)) => match &action.cluster_specifier {
            Some(route::route_action::ClusterSpecifier::Cluster(cluster)) => parts(cluster),
            _ => None,
        },
        _ => None,
    };
    match cluster {
        Some((_, port, _, host)) => format!("{host}:{port}{path}"),
        None => format!("{object}:{port}{path}"),
    }
}

/// The cluster of a destination: our own service's, or one that others serve.
pub(super) fn destination(view: &View<'_>, to: &Destination, called: u16) -> String {
    if to.host.is_empty() {
        return "UnknownService".to_owned();
    }
    let target = (view.lookup)(&to.host);
    let port = match (to.port, &target) {
        (Some(port), _) => u16::try_from(port.number).unwrap_or_default(),
        (None, Some(target)) if target.ports.len() == 1 => target.ports[0].number,
        _ => called,
    };
    if target.is_some() && !view.owns(&to.host) {
        return outbound(port, &to.subset, &to.host);
    }
    let protocol = target
        .as_ref()
        .and_then(|target| target.ports.iter().find(|known| known.number == port))
        .map_or(Protocol::Sniffed, |port| port.protocol);
    let kind = if protocol.http() { "http" } else { "tcp" };
    let subset = if to.subset.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}/{}", to.subset)
    };
    inbound(port, &subset, &to.host)
}

/// Every destination that an object names.
pub(super) fn destinations(hosted: &Hosted) -> impl Iterator<Item = &Destination> {
    let http = hosted.spec.http.iter().flat_map(|http| {
        let mirrors = http
            .mirrors
            .iter()
            .filter_map(|mirror| mirror.destination.as_ref());
        http.route
            .iter()
            .map(|to| &to.destination)
            .chain(http.mirror.as_ref())
            .chain(mirrors)
    });
    let l4 = hosted.spec.tls.iter().flat_map(|rule| &rule.route);
    let l4 = l4.chain(hosted.spec.tcp.iter().flat_map(|rule| &rule.route));
    http.chain(l4.map(|to| &to.destination))
}

/// A share in percent, in millionths.
fn share(value: f64) -> super::api::percent::FractionalPercent {
    super::api::percent::FractionalPercent {
        numerator: (value.clamp(0.0, 100.0) * 10_000.0).round() as u32,
        denominator: super::api::percent::fractional_percent::DenominatorType::Million.into(),
    }
}

/// A share in whole percent.
fn whole(value: u32) -> super::api::percent::FractionalPercent {
    super::api::percent::FractionalPercent {
        numerator: value.min(100),
        denominator: 0,
    }
}

fn fraction(share: super::api::percent::FractionalPercent) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent {
        default_value: Some(share),
        ..Default::default()
    }
}

fn weight(weight: u32) -> Option<UInt32Value> {
    number(weight)
}
