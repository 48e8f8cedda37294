//! The large configuration: 5,000 routes, 1,000 services, 20,000 endpoints. What stays resident, how
//! long one changed route takes to be in effect, and what that change costs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::process::usage_of;
use super::serve::Ports;
use super::setup::{cluster, filters, near, route, with_hosts};
use crate::resources::{LISTEN, Resources};
use crate::subject::{Kind, Subject};
use crate::wire::{Ask, Caller, Over};

const SERVICES: usize = 1_000;
const ROUTES: usize = 5;
const ENDPOINTS: usize = 20;
const PORT: u16 = 22_000;
/// A change that isn't in effect after this long never will be.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often each change is made.
const CHANGES: usize = 5;

/// What was measured of one proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) kind: Kind,
    /// Megabytes.
    pub(crate) resident: f64,
    /// From a written file to an answer that shows it, the median, in milliseconds. Our waypoint
    /// looks at its folder twice a second, Envoy is told by the kernel.
    pub(crate) effect: f64,
    /// Processor milliseconds of one changed route, the median.
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
    let folder = scratch.join(format!("scale-{}", kind.name()));
    fs::create_dir_all(&folder)?;
    let routes = folder.join("routes.json");
    // Envoy reads its routes from a file that is replaced; ours finds them in its folder.
    let mut resources = resources(server, &routes);
    write(&routes, &configuration(0))?;
    if kind == Kind::Waypoint {
        resources.others.push(configuration(0));
    }
    let subject = Subject::start(kind, &resources, scratch, 1).await?;
    let file = match kind {
        Kind::Envoy => routes,
        Kind::Waypoint => subject.resources().join(file_of(&resources)),
    };
    let at = subject.at(PORT);
    wait_for(at, 0).await?;
    let resident = usage_of(subject.pid())?.resident;
    let (mut effects, mut costs) = (Vec::new(), Vec::new());
    for change in 1..=CHANGES {
        let before = usage_of(subject.pid())?;
        let begun = Instant::now();
        write(&file, &configuration(change))?;
        wait_for(at, change).await?;
        effects.push(begun.elapsed().as_secs_f64() * 1e3);
        costs.push(usage_of(subject.pid())?.since(&before).as_secs_f64() * 1e3);
    }
    Ok(Scale {
        kind,
        resident,
        effect: median(effects),
        cost: median(costs),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The file that a folder keeps the routes in: the last one.
fn file_of(resources: &Resources) -> String {
    let before = resources.clusters.len() + resources.listeners.len();
    format!("{before:05}.json")
}

fn resources(server: &Ports, routes: &Path) -> Resources {
    let endpoints = [server.http; ENDPOINTS];
    let clusters = (0..SERVICES).map(|n| cluster(&service(n), &endpoints, false));
    let mut listener = with_hosts("large", PORT, &json!([]), filters(&near()), None);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    if let Some(manager) = manager.as_object_mut() {
        manager.remove("route_config");
        manager.insert(
            "rds".into(),
            json!({
                "route_config_name": "large",
                "config_source": {
                    "path_config_source": {"path": routes.to_string_lossy()},
                    "resource_api_version": "V3",
                },
            }),
        );
    }
    Resources {
        listeners: vec![listener],
        clusters: clusters.collect(),
        others: Vec::new(),
    }
}

fn service(number: usize) -> String {
    format!("inbound-vip|9080|http|service-{number}.scale.svc.cluster.local")
}

/// All routes; a direct response tells which change is in effect.
fn configuration(change: usize) -> Value {
    let hosts: Vec<Value> = (0..SERVICES)
        .map(|number| {
            let routes = (0..ROUTES).map(|r| {
                let user =
                    json!({"name": "x-user", "string_match": {"exact": format!("user-{r}")}});
                json!({"match": {"prefix": format!("/api/{r}"), "headers": [user]},
                       "route": route(&service(number))})
            });
            let mut routes: Vec<Value> = routes.collect();
            if number == SERVICES / 2 {
                routes[0] = json!({"match": {"path": "/size/change"}, "direct_response":
                    {"status": 200, "body": {"inline_string": change.to_string()}}});
            }
            let name = service(number);
            let host = name.rsplit('|').next().unwrap_or_default();
            json!({"name": name, "domains": [host], "routes": routes})
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "large",
        "validate_clusters": false,
        "virtual_hosts": hosts,
    })
}

/// Replaces the file in one step, as both proxies want it.
fn write(file: &Path, configuration: &Value) -> Result<()> {
    let partial = file.with_extension("partial");
    let text = serde_json::to_string(&json!({"resources": [configuration]}))?;
    fs::write(&partial, text.replace(LISTEN, "127.0.0.1"))?;
    Ok(fs::rename(partial, file)?)
}

async fn wait_for(at: SocketAddr, change: usize) -> Result<()> {
    let host = format!("service-{}.scale.svc.cluster.local", SERVICES / 2);
    let ask = Ask::get(&host, "/size/change");
    let what = format!("change {change} to be in effect");
    lab::patience::some(&what, PATIENCE, async || {
        let mut caller = Caller::connect(at, Over::H1).await.ok()?;
        let answer = caller.ask(&ask).await.ok()?;
        (answer.body == change.to_string().as_bytes()).then_some(())
    })
    .await
}
