//! S4, in all its forms: a waypoint is made, takes the traffic that it is for and no other, and goes
//! again. Every form leaves the stage without a waypoint, but the namespace's, which later stories
//! build upon.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use crate::bookstore::{self, NAMESPACE, Verdict};
use crate::mesh::{Connections, IN_FORCE};
use crate::stage::Stage;
use crate::story::routing::REVIEWS;
use crate::story::{page, policy};
use crate::until::until;
use crate::waypoint;

/// The waypoint of the namespace.
pub const WAYPOINT: &str = "waypoint";
/// The Gateway of Istio 1.18's form, called like the account that it is for, and its Deployment.
const OF_ACCOUNT: (&str, &str) = (
    "bookinfo-productpage",
    "bookinfo-productpage-istio-waypoint",
);

/// S4, today's form: one command for the whole namespace.
///
/// # Errors
/// When the waypoint does not come, or the traffic does not pass it.
pub fn s4_namespace(stage: &Stage) -> Result<()> {
    waypoint::apply(stage, WAYPOINT, &["--enroll-namespace"])?;
    stage.kubectl(&["get", "deployment", WAYPOINT])?;
    let opened = waypoint::is_passed(stage, WAYPOINT, "productpage-v1", || page(stage, "sleep"))?;
    let evidence = stage.narrator();
    evidence.evidence(&format!("ztunnel's metrics: {opened}"));
    let requests = waypoint::counted(
        stage,
        WAYPOINT,
        "istio_requests_total",
        &[
            ("reporter", "waypoint"),
            ("source_workload", "sleep"),
            ("destination_service_name", "productpage"),
            ("response_code", "200"),
        ],
    )?;
    ensure!(requests > 0, "the waypoint counted no request of sleep");
    evidence.evidence(&format!(
        "the waypoint's own: {requests} requests of sleep to productpage, answered with 200"
    ));
    Ok(())
}

/// S4, for one service, and for one workload: each takes what is addressed to that, and no more.
///
/// # Errors
/// When it takes too little or too much.
pub fn s4_service_and_workload(stage: &Stage) -> Result<()> {
    let (pod, ip) = front(stage)?;
    let at_pod = format!("http://{ip}:9080/");
    let to_pod = || served(stage, &at_pod);
    waypoint::apply(stage, "for-service", &["--for", "service"])?;
    stage.kubectl(&[
        "label",
        "service",
        "productpage",
        "istio.io/use-waypoint=for-service",
    ])?;
    let opened = waypoint::is_passed(stage, "for-service", "productpage-v1", || {
        page(stage, "sleep")
    })?;
    not_passed(stage, "for-service", &to_pod).context("the pod's own address")?;
    stage.narrator().evidence(&format!(
        "to the service: {opened}; to the pod's own address: past it"
    ));
    stage.kubectl(&["label", "service", "productpage", "istio.io/use-waypoint-"])?;
    waypoint::delete(stage, "for-service")?;

    waypoint::apply(stage, "for-workload", &["--for", "workload"])?;
    stage.kubectl(&["label", "pod", &pod, "istio.io/use-waypoint=for-workload"])?;
    let opened = waypoint::is_passed(stage, "for-workload", "productpage-v1", to_pod)?;
    not_passed(stage, "for-workload", &|| page(stage, "sleep")).context("the service")?;
    stage.narrator().evidence(&format!(
        "to the pod's own address: {opened}; to the service: past it"
    ));
    stage.kubectl(&["label", "pod", &pod, "istio.io/use-waypoint-"])?;
    waypoint::delete(stage, "for-workload")?;
    directly(stage)
}

/// S4 and S5, the form of Istio 1.18: a Gateway for a service account takes what is sent to its pods,
/// by the service's name and by their own addresses, and a policy names it by a label.
///
/// # Errors
/// When it does not, or takes more.
pub fn s4_account(stage: &Stage) -> Result<()> {
    let (gateway, deployment) = OF_ACCOUNT;
    // What `istioctl x waypoint apply --service-account bookinfo-productpage` wrote.
    stage.apply("waypoint-account")?;
    waypoint::programmed(stage, gateway)?;
    stage.kubectl(&["get", "deployment", deployment])?;
    let (_, ip) = front(stage)?;
    let at_pod = format!("http://{ip}:9080/");
    let opened = waypoint::is_passed(stage, deployment, "productpage-v1", || page(stage, "sleep"))?;
    waypoint::is_passed(stage, deployment, "productpage-v1", || {
        served(stage, &at_pod)
    })?;
    not_passed(stage, deployment, &|| {
        let (status, body) = bookstore::answer_quietly(stage, "sleep", &[REVIEWS])?;
        ensure!(status == 200, "reviews: {status} {body}");
        Ok(())
    })
    .context("a service of another account")?;
    stage.narrator().evidence(&format!(
        "to the account's service and pod: {opened}; to another account's: past it"
    ));
    policy::tells_methods_apart(stage, "waypoint-viewer-by-label")?;
    waypoint::delete(stage, gateway)?;
    directly(stage)
}

/// The waypoint goes, and so does the label that named it; calls go directly.
///
/// # Errors
/// When they do not.
pub fn removed(stage: &Stage) -> Result<()> {
    stage.kubectl(&["label", "namespace", NAMESPACE, "istio.io/use-waypoint-"])?;
    waypoint::delete(stage, WAYPOINT)?;
    directly(stage)
}

/// A waypoint of another namespace, which lets others in, takes the traffic of this one, and enforces
/// the policies that stand here.
///
/// # Errors
/// When it does not.
pub fn of_another_namespace(stage: &Stage) -> Result<()> {
    const MANIFEST: &str = "waypoint-shared";
    const NAME: &str = "shared";
    stage.apply(MANIFEST)?;
    let gateway = format!("gateway/{NAME}");
    stage.kubectl(&[
        "wait",
        "--for=condition=Programmed",
        &gateway,
        "-n",
        "edge",
        "--timeout=120s",
    ])?;
    stage.kubectl(&[
        "label",
        "namespace",
        NAMESPACE,
        "istio.io/use-waypoint=shared",
        "istio.io/use-waypoint-namespace=edge",
    ])?;
    waypoint::is_passed(stage, NAME, "productpage-v1", || page(stage, "sleep"))?;
    policy::tells_methods_apart(stage, "waypoint-viewer")?;
    stage.kubectl(&[
        "label",
        "namespace",
        NAMESPACE,
        "istio.io/use-waypoint-",
        "istio.io/use-waypoint-namespace-",
    ])?;
    directly(stage)?;
    stage.delete(MANIFEST)
}

/// What istioctl knows of waypoints: one is generated and applied as a file, has a status, is in the
/// list, and is deleted with all that was made of it.
///
/// # Errors
/// When istioctl fails or says something else.
pub fn istioctl(stage: &Stage) -> Result<()> {
    const NAME: &str = "generated";
    let here = ["--namespace", NAMESPACE];
    let with = |words: &[&str]| stage.istioctl(&[&["waypoint"], words, &here].concat());
    let manifest = with(&["generate", "--name", NAME, "--for", "all"])?;
    stage.apply_text(&manifest)?;
    // It waits until the waypoint is programmed, and fails where that does not come.
    let status = with(&["status", "--name", NAME])?;
    let row = |said: &str, words: &[&str]| {
        let mut rows = said.lines();
        rows.any(|row| {
            words
                .iter()
                .all(|word| row.split_whitespace().any(|found| found == *word))
        })
    };
    ensure!(
        row(&status, &[NAME, "True", "Programmed"]),
        "istioctl waypoint status: {status}"
    );
    waypoint::ready(stage, NAME, 1)?;
    let list = with(&["list"])?;
    ensure!(
        row(&list, &[NAME, "True"]),
        "istioctl waypoint list: {list}"
    );
    let everywhere = stage.istioctl(&["waypoint", "list", "--all-namespaces"])?;
    ensure!(
        row(&everywhere, &[NAMESPACE, NAME, "True"]),
        "istioctl waypoint list --all-namespaces: {everywhere}"
    );
    waypoint::delete(stage, NAME)?;
    let list = with(&["list"])?;
    ensure!(!row(&list, &[NAME]), "deleted, and still listed: {list}");
    for kind in ["deployment", "service", "serviceaccount"] {
        goes_with_its_gateway(stage, kind, NAME)?;
    }
    Ok(())
}

/// Waits until an object that was made for a Gateway is gone.
fn goes_with_its_gateway(stage: &Stage, kind: &str, name: &str) -> Result<()> {
    let what = format!("{kind} {name} to go with its Gateway");
    until(&what, IN_FORCE, || {
        let left = stage.look(&["get", kind, name, "-n", NAMESPACE, "--ignore-not-found"])?;
        ensure!(left.is_empty(), "still there: {left}");
        Ok(())
    })
}

/// What a Gateway's parameters ask for beside the Deployment: an autoscaler, which holds two pods at
/// least, and a disruption budget. Both go with the Gateway.
///
/// # Errors
/// When one of them does not come, or stays.
pub fn autoscaled(stage: &Stage) -> Result<()> {
    const NAME: &str = "autoscaled";
    const ASKED_FOR: [&str; 2] = ["horizontalpodautoscaler", "poddisruptionbudget"];
    stage.apply("waypoint-autoscaled")?;
    waypoint::programmed(stage, NAME)?;
    waypoint::ready(stage, NAME, 2)?;
    for kind in ASKED_FOR {
        stage.kubectl(&["get", kind, NAME])?;
    }
    waypoint::delete(stage, NAME)?;
    for kind in ASKED_FOR {
        goes_with_its_gateway(stage, kind, NAME)?;
    }
    stage.kubectl(&["delete", "configmap", NAME]).map(drop)
}

/// The product page's pod, and its address.
fn front(stage: &Stage) -> Result<(String, IpAddr)> {
    let pods = bookstore::pods(stage)?;
    let front = pods
        .into_iter()
        .find(|pod| pod.app == "productpage")
        .context("no pod of the product page")?;
    let ip = *front.ips.first().context("a pod without an address")?;
    Ok((front.name, ip))
}

fn served(stage: &Stage, url: &str) -> Result<()> {
    let verdict = bookstore::ask_quietly(stage, "sleep", url, &[])?;
    ensure!(verdict == Verdict::Title, "{url}: {verdict}");
    Ok(())
}

/// That what `call` does passes no pod of the waypoint.
fn not_passed(stage: &Stage, name: &str, call: &dyn Fn() -> Result<()>) -> Result<()> {
    let before = Connections::now(stage)?;
    call()?;
    let opened = Connections::now(stage)?.since(&before);
    ensure!(
        opened.of("destination", name).total() == 0,
        "through {name}: {}",
        opened.told()
    );
    Ok(())
}

/// Waits until a call from sleep to the product page has one leg.
fn directly(stage: &Stage) -> Result<()> {
    until("direct calls", IN_FORCE, || {
        let before = Connections::now(stage)?;
        page(stage, "sleep")?;
        let opened = Connections::now(stage)?.since(&before);
        let direct = opened
            .of("source", "sleep")
            .of("destination", "productpage-v1");
        ensure!(direct.total() > 0, "opened: {}", opened.told());
        Ok(())
    })
}
