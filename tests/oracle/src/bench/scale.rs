//! The large configuration, by delta ADS: 5,000 routes, 1,000 services, 20,000 endpoints. What stays
//! resident, how long one changed resource takes to be in effect, and what that change costs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::process::{REST, Resident, usage_of};
use super::serve::Ports;
use super::setup::{cluster, filters, near, route, with_hosts};
use crate::ads::Ads;
use crate::resources::Resources;
use crate::subject::{Kind, Subject, loopback};
use crate::wire::{Answer, Ask, Caller, Over};

const SERVICES: usize = 1_000;
const ROUTES: usize = 5;
const ENDPOINTS: usize = 20;
const PORT: u16 = 22_000;
/// The service that changes.
const CHANGING: usize = SERVICES / 2;
/// A change that isn't in effect after this long never will be.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often each change is made.
const CHANGES: usize = 9;

/// What was measured of one proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) kind: Kind,
    pub(crate) resident: Resident,
    /// One route of the 5,000.
    pub(crate) route: Change,
    /// The endpoints of one service.
    pub(crate) endpoint: Change,
}

/// Medians.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// From the push to an answer that shows it, in milliseconds.
    pub(crate) effect: f64,
    /// Processor milliseconds.
    pub(crate) cost: f64,
}

pub(crate) async fn measure(kinds: &[Kind], server: &Ports, scratch: &Path) -> Result<Vec<Scale>> {
    let mut all = Vec::new();
    for kind in kinds {
        all.push(
            one(*kind, server, scratch)
                .await
                .with_context(|| kind.name())?,
        );
    }
    Ok(all)
}

async fn one(kind: Kind, server: &Ports, scratch: &Path) -> Result<Scale> {
    let ads = Ads::start().await?;
    let listen = loopback();
    ads.set(resources().rendered(listen)?)?;
    ads.set((0..SERVICES).map(|n| endpoints(n, server.http, ENDPOINTS)))?;
    ads.set([routes(0)])?;
    let subject = Subject::follow(kind, &ads, listen, scratch).await?;
    let at = subject.at(PORT);
    let shows = |wanted: usize| move |answer: &Answer| answer.body == wanted.to_string().as_bytes();
    until(at, "/size/change", shows(0)).await?;
    tokio::time::sleep(REST).await;
    let resident = usage_of(subject.pid())?.resident;
    let mut pushes = Vec::new();
    for change in 1..=CHANGES {
        let push = ads.encode([routes(change)])?;
        let before = usage_of(subject.pid())?;
        let begun = Instant::now();
        ads.publish(push);
        until(at, "/size/change", shows(change)).await?;
        pushes.push((begun.elapsed(), usage_of(subject.pid())?.since(&before)));
    }
    let route = median(&pushes);
    pushes.clear();
    for change in 0..CHANGES {
        // There and gone by turns.
        let count = if change % 2 == 0 { 0 } else { ENDPOINTS };
        let wanted = if count == 0 { 503 } else { 200 };
        let push = ads.encode([endpoints(CHANGING, server.http, count)])?;
        let before = usage_of(subject.pid())?;
        let begun = Instant::now();
        ads.publish(push);
        until(at, "/size/1", |answer| answer.status == wanted).await?;
        pushes.push((begun.elapsed(), usage_of(subject.pid())?.since(&before)));
    }
    Ok(Scale {
        kind,
        resident,
        route,
        endpoint: median(&pushes),
    })
}

fn median(pushes: &[(Duration, Duration)]) -> Change {
    let middle = |of: fn(&(Duration, Duration)) -> Duration| {
        let mut values: Vec<_> = pushes.iter().map(of).collect();
        values.sort();
        values[values.len() / 2].as_secs_f64() * 1e3
    };
    Change {
        effect: middle(|push| push.0),
        cost: middle(|push| push.1),
    }
}

fn resources() -> Resources {
    let by_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let clusters = (0..SERVICES).map(|number| {
        let mut cluster = cluster(&service(number), &[], false);
        cluster["type"] = "EDS".into();
        cluster["eds_cluster_config"] = json!({"eds_config": by_ads});
        if let Some(cluster) = cluster.as_object_mut() {
            cluster.remove("load_assignment");
        }
        cluster
    });
    let mut listener = with_hosts("large", PORT, &json!([]), filters(&near()), None);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    if let Some(manager) = manager.as_object_mut() {
        manager.remove("route_config");
        let rds = json!({"route_config_name": "large", "config_source": by_ads});
        manager.insert("rds".into(), rds);
    }
    Resources {
        listeners: vec![listener],
        clusters: clusters.collect(),
        ..Resources::default()
    }
}

fn service(number: usize) -> String {
    format!("inbound-vip|9080|http|service-{number}.scale.svc.cluster.local")
}

fn endpoints(number: usize, server: SocketAddr, count: usize) -> Value {
    let endpoint = json!({
        "endpoint": {"address": {"socket_address": {
            "address": server.ip().to_string(), "port_value": server.port()}}},
        "health_status": "HEALTHY",
        "load_balancing_weight": 1,
    });
    // Each on a loopback address of its own, where the server listens on none but the first.
    let each = (0..count).map(|n| {
        let mut endpoint = endpoint.clone();
        if number != CHANGING {
            let address = format!("127.200.{}.{n}", number % 250);
            endpoint["endpoint"]["address"]["socket_address"]["address"] = address.into();
        }
        endpoint
    });
    // The one that changes has a single endpoint, because only one server listens.
    let each: Vec<Value> = each
        .take(if number == CHANGING { 1 } else { count })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": service(number),
        "endpoints": [{"locality": {}, "lb_endpoints": each}],
    })
}

/// All routes; a direct response tells which change is in effect.
fn routes(change: usize) -> Value {
    let hosts: Vec<Value> = (0..SERVICES)
        .map(|number| {
            let routes = (0..ROUTES).map(|r| {
                let user =
                    json!({"name": "x-user", "string_match": {"exact": format!("user-{r}")}});
                json!({"match": {"prefix": format!("/api/{r}"), "headers": [user]},
                       "route": route(&service(number))})
            });
            let mut routes: Vec<Value> = routes.collect();
            if number == CHANGING {
                routes[0] = json!({"match": {"path": "/size/change"}, "direct_response":
                    {"status": 200, "body": {"inline_string": change.to_string()}}});
                routes[1] = json!({"match": {"prefix": "/"}, "route": route(&service(number))});
            }
            let name = service(number);
            let host = name.rsplit('|').next().unwrap_or_default();
            json!({"name": name, "domains": [host], "routes": routes})
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "large",
        "virtual_hosts": hosts,
    })
}

async fn until(at: SocketAddr, path: &str, shows: impl Fn(&Answer) -> bool) -> Result<()> {
    let host = format!("service-{CHANGING}.scale.svc.cluster.local");
    let ask = Ask::get(&host, path);
    let what = format!("a change to be in effect at {path}");
    lab::patience::some(&what, PATIENCE, async || {
        let mut caller = Caller::connect(at, Over::H1).await.ok()?;
        let answer = caller.ask(&ask).await.ok()?;
        shows(&answer).then_some(())
    })
    .await
}
