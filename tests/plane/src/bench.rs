//! Control beside the real istiod, in one run, on the same API server and the same objects.
//!
//! Each is started idle, then with all objects, then followed by node proxies while pods change. What
//! is compared is what an operator pays: memory, CPU, the time until a change is at the proxies, and
//! the time until a new replica is ready. One runs at a time; the API server serves both alike.

pub mod objects;
pub mod report;
pub mod subject;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::install;
use crate::proxy::{Proxy, Way};
use crate::server::{ApiServer, client};
use objects::Size;
use report::Measured;
use subject::{Plane, Running};

/// How long a plane may take to settle, and a proxy to be told everything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Quiet before memory is read.
const REST: Duration = Duration::from_secs(10);
/// How long the last change may take to arrive.
const LAST: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The objects.
    pub size: Size,
    /// Node proxies connected.
    pub proxies: usize,
    /// Pods changed each second.
    pub rate: u32,
    /// For how many seconds.
    pub seconds: u32,
}

/// What arrived at a proxy, and when.
type Arrivals = Arc<parking_lot::Mutex<Vec<(String, Instant)>>>;

/// Measures both, and prints the table.
///
/// # Errors
/// When a program can't be had, or does not do its work in time.
pub async fn run(control: &Path, plan: Plan) -> Result<()> {
    let say = |line: &str| println!("{line}");
    say("an API server");
    let server = ApiServer::start().await?;
    let admin = server.client().await?;
    install::definitions(&admin).await?;
    install::rights(&admin, &[]).await?;
    let token = install::mesh_token(&admin, install::NAMESPACE, "ztunnel").await?;
    let planes = [Plane::Control(control.to_owned()), Plane::Istiod];
    let mut measured = [Measured::default(), Measured::default()];
    for (plane, measured) in planes.iter().zip(&mut measured) {
        say(&format!("{plane}: idle"));
        let mut running = plane.start(&server, &admin).await?;
        running.ready(PATIENCE).await?;
        tokio::time::sleep(REST).await;
        measured.idle = running.resident()?;
        running.stop().await?;
    }
    say(&format!(
        "{} services, {} pods",
        plan.size.services, plan.size.pods
    ));
    objects::create(&admin, plan.size).await?;
    for (plane, measured) in planes.iter().zip(&mut measured) {
        say(&format!("{plane}: with all objects"));
        let begun = Instant::now();
        let mut running = plane.start(&server, &admin).await?;
        running.ready(PATIENCE).await?;
        measured.start = begun.elapsed();
        tokio::time::sleep(REST).await;
        measured.loaded = running.resident()?;
        let way = Way {
            addresses: vec![running.grpc],
            root: plane.root(&admin).await?,
            token: token.clone(),
        };
        say(&format!(
            "{plane}: {} proxies, {} pods a second",
            plan.proxies, plan.rate
        ));
        changes(&server, plan, way, &running, measured)
            .await
            .with_context(|| running.said())?;
        running.stop().await?;
    }
    println!("\n{}", report::table(&measured, plan));
    Ok(())
}

async fn changes(
    server: &ApiServer,
    plan: Plan,
    way: Way,
    running: &Running,
    measured: &mut Measured,
) -> Result<()> {
    let arrivals: Vec<Arrivals> = (0..plan.proxies).map(|_| Arrivals::default()).collect();
    let proxies: Vec<Proxy> = arrivals
        .iter()
        .enumerate()
        .map(|(number, arrivals)| {
            let arrivals = arrivals.clone();
            Proxy::heard(way.clone(), format!("ztunnel-{number}"), move |name, at| {
                arrivals.lock().push((name.to_owned(), at));
            })
        })
        .collect();
    let all = plan.size.services + plan.size.pods;
    for proxy in &proxies {
        let known = proxy.until("a proxy has everything", PATIENCE, |known| {
            known.resources.len() >= all
        });
        known.await?;
    }
    tokio::time::sleep(REST).await;
    measured.connected = running.resident()?;
    for arrivals in &arrivals {
        arrivals.lock().clear();
    }
    // A client of its own for the changes: the kubeconfig is the administrator's.
    let changer = client(&server.administrator()?).await?;
    let changed: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let (cpu, begun) = (running.cpu()?, Instant::now());
    let mut writes = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / plan.rate);
    for number in 0..(plan.rate * plan.seconds) as usize {
        tick.tick().await;
        let (changer, changed) = (changer.clone(), changed.clone());
        writes.spawn(async move {
            let uid = objects::change(&changer, plan.size, number).await?;
            changed.lock().await.insert(uid, Instant::now());
            anyhow::Ok(())
        });
    }
    while let Some(written) = writes.join_next().await {
        written??;
    }
    let changed = changed.lock().await.clone();
    let arrived = || {
        let all = arrivals.iter().all(|arrivals| {
            let arrivals = arrivals.lock();
            let mut names: Vec<&String> = arrivals.iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            names.dedup();
            names.len() >= changed.len()
        });
        std::future::ready(all.then_some(()))
    };
    crate::until::until("every change is at every proxy", LAST, arrived).await?;
    let took = begun.elapsed();
    measured.cpu = (running.cpu()? - cpu).as_secs_f64() / took.as_secs_f64();
    for arrivals in &arrivals {
        let mut seen = HashMap::new();
        for (name, at) in arrivals.lock().iter() {
            seen.entry(name.clone()).or_insert(*at);
        }
        for (name, sent) in &changed {
            let at = seen
                .get(name)
                .with_context(|| format!("{name} did not arrive"))?;
            measured.delays.push(at.saturating_duration_since(*sent));
        }
    }
    measured.delays.sort_unstable();
    ensure!(
        proxies.iter().all(|proxy| proxy.connections() == 1),
        "a proxy lost its connection while it was measured"
    );
    Ok(())
}
