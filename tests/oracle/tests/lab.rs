//! The whole way with real processes in namespaces of their own: pod → ztunnel → our waypoint → ztunnel
//! → pod. The waypoint follows a control plane that gives it istiod's graph, and its certificate comes
//! from the lab's authority.

#[path = "lab/custom.rs"]
mod custom;
#[path = "lab/networks.rs"]
mod networks;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::agent::orders::Verdict;
use lab::ca::Flaw;
use lab::document::Document;
use lab::peer::{self, Met};
use lab::process::{Process, describe};
use lab::{Lab, Pod, http, patience};
use mesh::file::format::Gateway;
use nix::sys::signal::Signal;
use oracle::ads::Discovery;
use oracle::graph::{self, Chain, HBONE};
use oracle::subject::follower;
use serde_json::{Value, json};

const PORT: u16 = 8080;
const CHAIN: &str = "inbound-vip|80|http|shop.default.svc.cluster.local";
const DENIED: &str = "RBAC: access denied";
/// How long a changed configuration may take to be in force, and a process to be ready.
const SOON: Duration = Duration::from_secs(20);
const READINESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15021);

/// `client` and `other` on the first node, `server` behind the service `shop` on the second, and our
/// waypoint on the first, through which every way to `server` leads.
struct Scene {
    lab: Lab,
    client: Pod,
    other: Pod,
    server: Pod,
    shop: SocketAddr,
    way: Pod,
    waypoint: Process,
    discovery: Discovery,
    _scratch: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Result<Self> {
        let scene = Self::stand(80).await?;
        scene.allow("GET")?;
        scene.ready().await?;
        scene.require().await?;
        Ok(scene)
    }

    /// All of it, with `shop` at this port; the waypoint is told nothing yet.
    async fn stand(port: u16) -> Result<Self> {
        let lab = Lab::start().await?;
        let (client, other, server, way) = tokio::try_join!(
            lab.pod("client").start(),
            lab.pod("other").start(),
            lab.pod("server").on(lab.node(2)).serving(PORT).start(),
            lab.pod("way")
                .outside_the_mesh()
                .identity("bookinfo", "waypoint")
                .start(),
        )?;
        let shop = lab.service("shop", &[(port, PORT)], &[&server]).await?;
        let shop = SocketAddr::new(shop.v4.into(), port);
        lab.service("way", &[(HBONE, HBONE)], &[&way]).await?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let discovery = Discovery::serve(way.netns().listen(at)?)?;
        let scratch = tempfile::tempdir()?;
        let mut command = follower(discovery.at, lab.authority(), way.ip(), scratch.path())?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self {
            waypoint: way.run(command)?,
            lab,
            client,
            other,
            server,
            shop,
            way,
            discovery,
            _scratch: scratch,
        })
    }

    /// The waypoint lets `client` call `shop` with this method, and nobody else anything.
    fn allow(&self, method: &str) -> Result<()> {
        self.configure(method, graph::service(CHAIN, self.server.at(PORT)))
    }

    /// The same, with the cluster that `shop` is.
    fn configure(&self, method: &str, cluster: Value) -> Result<()> {
        let header = json!({"name": ":method", "string_match": {"exact": method}});
        let principal = json!({"filter_state": {
            "key": "io.istio.peer_principal", "string_match": {"exact": self.client.identity()},
        }});
        let policy = json!({"permissions": [{"header": header}], "principals": [principal]});
        let chain = Chain {
            name: CHAIN.to_owned(),
            port: self.shop.port(),
            filters: json!([manager(&policy)]),
        };
        let mut resources = graph::resources(self.shop.ip(), vec![chain]);
        resources.clusters.push(cluster);
        self.discovery
            .set(resources.rendered(Ipv4Addr::UNSPECIFIED)?)
    }

    async fn ready(&self) -> Result<()> {
        let ready = patience::some("the waypoint to be ready", SOON, async || {
            if let Some(status) = self.waypoint.ended() {
                return Some(Err(anyhow::anyhow!("it ended: {}", describe(status))));
            }
            let answer = http::request(self.way.netns(), READINESS, "GET", "/healthz/ready");
            answer.is_ok_and(|a| a.status == 200).then_some(Ok(()))
        });
        ready.await?
    }

    /// Every way to the server leads through the waypoint: ztunnels are told so.
    async fn require(&self) -> Result<()> {
        let gateway = || Gateway {
            hostname: Some("default/way.default.svc.cluster.local".to_owned()),
            ..Gateway::default()
        };
        let uid = self.server.uid().to_owned();
        let change = move |document: &mut Document| {
            if let Some(shop) = document.services.get_mut("shop.default.svc.cluster.local") {
                shop.waypoint = Some(gateway());
                shop.ingress_use_waypoint = true;
            }
            if let Some(server) = document.workloads.get_mut(&uid) {
                server.waypoint = Some(gateway());
            }
        };
        self.lab.change(change).await
    }

    /// The server answers this call of the client, sooner or later: once the policy is in force.
    async fn served(&self, posted: bool) -> Result<()> {
        let what = format!("the client's {}", if posted { "POST" } else { "GET" });
        let served =
            async || said(self.call(posted).await).filter(|said| said.starts_with("server sees"));
        patience::some(&what, SOON, served).await.map(drop)
    }

    async fn call(&self, posted: bool) -> Verdict {
        let call = self.client.get(self.shop);
        if posted {
            call.posted().await
        } else {
            call.await
        }
    }
}

fn said(verdict: Verdict) -> Option<String> {
    verdict.answer().map(str::to_owned)
}

/// istiod's filters of one policy.
fn manager(policy: &Value) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": CHAIN,
        "http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": {
                "@type": format!("{TYPES}.http.rbac.v3.RBAC"),
                "rules": {"action": "ALLOW", "policies": {"ns[default]-policy[viewer]-rule[0]": policy}},
            }},
            {"name": "envoy.filters.http.router", "typed_config": {
                "@type": format!("{TYPES}.http.router.v3.Router"),
            }},
        ],
        "route_config": {"name": CHAIN, "virtual_hosts": [{
            "name": "inbound|http|80", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": CHAIN}}],
        }]},
    }})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_by_method_holds_between_ztunnels() -> Result<()> {
    let scene = Scene::start().await?;
    let answer = said(scene.call(false).await).context("the client's GET")?;
    ensure!(answer.starts_with("server sees"), "{answer}");
    for (what, verdict) in [
        ("the client's POST", scene.call(true).await),
        ("another's GET", scene.other.get(scene.shop).await),
    ] {
        let answer = said(verdict).context(what)?;
        ensure!(answer == DENIED, "{what}: {answer}");
    }
    // A changed policy holds for the next request, both ways round.
    scene.allow("POST")?;
    scene.served(true).await?;
    let answer = said(scene.call(false).await).context("the client's GET, later")?;
    ensure!(answer == DENIED, "GET, when only POST is allowed: {answer}");
    // The destination's ztunnel was told who came: the waypoint, for the service. It says so when the
    // connection ends, which the waypoint keeps for further requests.
    scene.waypoint.signal(Signal::SIGKILL)?;
    scene.waypoint.end(SOON).await?;
    let way = scene.way.identity();
    let line = [
        ("direction", "inbound"),
        ("src.identity", &*way),
        ("dst.workload", "server"),
    ];
    let log = scene.lab.node(2).ztunnel().log();
    let told = || log.access().iter().any(|access| access.has(&line));
    patience::until("a line about the waypoint's connection", SOON, told).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_round_the_waypoint_is_refused() -> Result<()> {
    let scene = Scene::start().await?;
    scene.served(false).await?;
    let to = scene.server.at(PORT);
    let round = async |identity: &str| -> Result<Met> {
        let own = scene.lab.authority().issue(identity, Flaw::None)?;
        let hbone = SocketAddr::new(to.ip(), HBONE);
        let authority = to.to_string();
        let met = peer::connect(scene.way.netns(), hbone, Some(&own), &authority).await?;
        Ok(met.met)
    };
    let client = round(&scene.client.identity()).await?;
    ensure!(
        client == Met::Status(401),
        "with the client's identity: {client:?}"
    );
    let way = round(&scene.way.identity()).await?;
    ensure!(way == Met::Status(200), "with the waypoint's: {way:?}");
    let plain = scene.way.get(to).await;
    ensure!(plain.is_denied(), "without a tunnel: {plain}");
    // To the pod itself a mesh pod's ztunnel goes through the waypoint, which has no chain for it.
    let direct = scene.client.get(to).await;
    ensure!(direct.is_denied(), "to the pod's own address: {direct}");
    // And where the waypoint is gone, nothing leads past it.
    scene.waypoint.signal(Signal::SIGKILL)?;
    scene.waypoint.end(SOON).await?;
    let gone = scene.client.get(scene.shop).await;
    if let Some(answer) = gone.answer() {
        bail!("without its waypoint: {answer}");
    }
    Ok(())
}
