//! What a waypoint does for the bookstore: made with istioctl's own commands, it takes the traffic
//! of a namespace, a service or a workload, and routes and authorises it. One text for both control
//! planes. Long because the stories stand here in the order in which they are told.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, FRONT, NAMESPACE, PAGE, Verdict};
use e2e::load::{Load, Outcomes};
use e2e::mesh::{self, IN_FORCE};
use e2e::stage::Stage;
use e2e::until::until;
use e2e::{process, waypoint};
use serde_json::Value;

use crate::cases::Play;

/// The waypoint of the namespace.
pub(crate) const WAYPOINT: &str = "waypoint";
/// A request that reviews answers by itself, with the name of its pod.
pub(crate) const REVIEWS: &str = "http://reviews:9080/reviews/0";
/// The image that `xtask image` makes, and another name for it.
const IMAGE: &str = "culvert.local/waypoint:dev";
const OTHER_IMAGE: &str = "culvert.local/another-waypoint:dev";
/// What a denied request is answered with.
const DENIED: (u16, &str) = (403, "RBAC: access denied");
/// Cookies of somebody who has logged in as jason.
const JASON: &str = "cookie: theme=dark;user=jason;lang=en";

/// S4, today's form: one command for the whole namespace.
pub(crate) fn s4_namespace(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    waypoint::apply(stage, WAYPOINT, &["--enroll-namespace"])?;
    for pod in waypoint::pods(stage, WAYPOINT)? {
        ensure!(pod.image == IMAGE, "{} runs {}", pod.name, pod.image);
    }
    waypoint::is_passed(stage, WAYPOINT, "productpage-v1", || page(stage, "sleep"))?;
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
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}

/// S16: istiod, as it is, has sent the waypoint its configuration, and the waypoint has acknowledged
/// all of it. istioctl asks istiod itself.
pub(crate) fn s16(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let pods = waypoint::pods(stage, WAYPOINT)?;
    let pod = pods.first().context("no waypoint")?;
    until("every push acknowledged", IN_FORCE, || {
        let said = stage.istioctl(&["x", "internal-debug", "syncz"])?;
        let said: Value = serde_json::from_str(&said).context("syncz is no JSON")?;
        let ours = said.as_array().into_iter().flatten().find(|proxy| {
            let id = proxy["proxy"].as_str();
            id.is_some_and(|id| id.contains(&pod.name))
        });
        let ours = ours
            .and_then(Value::as_object)
            .with_context(|| format!("{} is not connected: {said}", pod.name))?;
        let mut acknowledged = 0;
        for (key, sent) in ours {
            if let Some(kind) = key.strip_suffix("_sent") {
                let acked = ours.get(&format!("{kind}_acked"));
                ensure!(
                    acked == Some(sent),
                    "{kind}: sent {sent}, acknowledged {acked:?}"
                );
                acknowledged += 1;
            }
        }
        ensure!(
            acknowledged >= 3,
            "clusters, endpoints and listeners were not all sent: {ours:?}"
        );
        Ok(())
    })
}

/// S5: the product page's policy, at the waypoint, tells methods apart.
pub(crate) fn s5(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    // The same name as the L4 policy of S3, which would let in nobody but sleep, and not the waypoint.
    stage.kubectl(&["delete", "authorizationpolicy", "--all", "-n", NAMESPACE])?;
    stage.apply("waypoint-viewer")?;
    denied_soon(stage, "notsleep", &[FRONT])?;
    let told = story(stage);
    stage.kubectl(&["delete", "authorizationpolicy", "productpage-viewer"])?;
    told?;
    served_soon(stage, "notsleep")
}

fn story(stage: &Stage) -> Result<()> {
    let denied = |from, words: &[&str]| -> Result<()> {
        let (status, body) = bookstore::answer(stage, from, words)?;
        ensure!(
            (status, body.as_str()) == DENIED,
            "{from}: {status} {body:?}"
        );
        Ok(())
    };
    for _ in 0..3 {
        denied("sleep", &["-X", "DELETE", FRONT])?;
        denied("notsleep", &[FRONT])?;
        denied("notsleep", &["-X", "DELETE", FRONT])?;
        let verdict = bookstore::ask(stage, "sleep", FRONT)?;
        ensure!(verdict == Verdict::Title, "sleep, GET: {verdict}");
    }
    // What sleep may not do to the product page it may do to another service.
    let (status, _) = bookstore::answer(stage, "sleep", &["-X", "DELETE", REVIEWS])?;
    ensure!(status != DENIED.0, "the policy is in force for reviews too");
    Ok(())
}

/// L4 policy at the destination holds, and sees the waypoint as the source: through it the page is
/// served, and a call past it is reset.
pub(crate) fn l4_policy(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    stage.apply("waypoint-only")?;
    let told = (|| {
        let pods = bookstore::pods(stage)?;
        let front = pods.iter().find(|pod| pod.app == "productpage");
        let ip = front.and_then(|pod| pod.ips.first()).context("no page")?;
        let past = format!("http://{ip}:9080/");
        until("calls past the waypoint are reset", IN_FORCE, || {
            let verdict = bookstore::ask_quietly(stage, "sleep", &past, &[])?;
            ensure!(verdict == Verdict::Reset, "past the waypoint: {verdict}");
            Ok(())
        })?;
        page(stage, "sleep").context("through the waypoint")
    })();
    stage.kubectl(&["delete", "authorizationpolicy", "productpage-waypoint-only"])?;
    told
}

/// S6: 1,000 requests are split as told, within three standard deviations (√(1000 · 0.9 · 0.1) = 9.5).
pub(crate) fn s6(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    rules(stage, &["reviews-subsets", "reviews-90-10"], "v3", 0)?;
    let outcomes = reviews(stage, 1000, None)?;
    let (v1, v2) = (version(&outcomes, 1), version(&outcomes, 2));
    ensure!(v1 + v2 == 1000, "not all by v1 and v2: {outcomes}");
    ensure!(v1.abs_diff(900) <= 28, "{v1} of 1000 by v1: {outcomes}");
    stage.narrator().evidence(&format!(
        "of 1000 requests {v1} were answered by v1, {v2} by v2"
    ));
    no_rules(stage)
}

/// S10: the cookie chooses.
pub(crate) fn s10(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    rules(stage, &["reviews-subsets", "reviews-jason"], "v3", 0)?;
    let jason = reviews(stage, 200, Some(JASON))?;
    ensure!(version(&jason, 2) == 200, "jason: {jason}");
    for other in [
        None,
        Some("cookie: user=jasonx"),
        Some("cookie: xuser=jason"),
    ] {
        let others = reviews(stage, 100, other)?;
        ensure!(version(&others, 1) == 100, "{other:?}: {others}");
    }
    no_rules(stage)
}

/// S17: with every service in its first version no page shows stars.
pub(crate) fn s17(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    rules(stage, &["all-v1"], "v2", 0)?;
    for _ in 0..30 {
        let (status, page) = bookstore::answer(stage, "sleep", &[PAGE])?;
        ensure!(status == 200, "{status}: {page}");
        ensure!(
            !page.contains('★') && !page.contains("glyphicon-star"),
            "stars: {page}"
        );
    }
    let outcomes = reviews(stage, 100, None)?;
    ensure!(version(&outcomes, 1) == 100, "{outcomes}");
    no_rules(stage)
}

/// S15: rules change twice a second under 10,000 requests. Jason's always lead to v2, everybody
/// else's now to v1, now to v3: not one fails, and not one goes astray.
pub(crate) fn s15(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    rules(stage, &["reviews-subsets", "reviews-jason"], "v3", 0)?;
    let words = |more: &[&'static str]| {
        let all = [
            REVIEWS,
            "--count",
            "5000",
            "--parallel",
            "4",
            "--pause",
            "0",
        ];
        let mut all = [all.as_slice(), &["--keep", "--member", "podname"]].concat();
        all.extend_from_slice(more);
        all
    };
    let mut jason = Load::start(stage, "sleep", &words(&["-H", JASON]))?;
    let mut others = Load::start(stage, "notsleep", &words(&[]))?;
    let (mut to, mut changes) = (3, 0);
    let mut next = Instant::now();
    while jason.runs() || others.runs() {
        let rule = format!(
            r#"[{{"op":"replace","path":"/spec/http/1/route/0/destination/subset","value":"v{to}"}}]"#
        );
        stage.look(&[
            "patch",
            "virtualservice",
            "reviews",
            "--type=json",
            "-p",
            &rule,
        ])?;
        (to, changes) = (4 - to, changes + 1);
        next += Duration::from_millis(500);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let (jason, others) = (jason.finish()?, others.finish()?);
    ensure!(
        version(&jason, 2) == 5000,
        "jason, after {changes} changes: {jason}"
    );
    let (v1, v3) = (version(&others, 1), version(&others, 3));
    ensure!(v1 + v3 == 5000, "others, after {changes} changes: {others}");
    ensure!(
        v1 > 0 && v3 > 0 && changes >= 4,
        "{changes} changes did not show: {others}"
    );
    stage.narrator().evidence(&format!(
        "{changes} changes under 10000 requests: jason 5000 by v2, others {v1} by v1 and {v3} by v3"
    ));
    no_rules(stage)
}

/// The waypoint goes, and so do the labels that named it; calls go directly.
pub(crate) fn removed(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    stage.kubectl(&["label", "namespace", NAMESPACE, "istio.io/use-waypoint-"])?;
    waypoint::delete(stage, WAYPOINT)?;
    directly(stage)?;
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}

/// S4, for one service, and for one workload: each takes what is addressed to that, and no more.
pub(crate) fn s4_service_and_workload(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let pods = bookstore::pods(stage)?;
    let front = pods
        .iter()
        .find(|pod| pod.app == "productpage")
        .context("no pod of the product page")?;
    let ip = front.ips.first().context("a pod without an address")?;
    let at_pod = format!("http://{ip}:9080/");
    let to_pod = || {
        let verdict = bookstore::ask_quietly(stage, "sleep", &at_pod, &[])?;
        ensure!(verdict == Verdict::Title, "{verdict}");
        Ok(())
    };
    waypoint::apply(stage, "for-service", &["--for", "service"])?;
    stage.kubectl(&[
        "label",
        "service",
        "productpage",
        "istio.io/use-waypoint=for-service",
    ])?;
    waypoint::is_passed(stage, "for-service", "productpage-v1", || {
        page(stage, "sleep")
    })?;
    not_passed(stage, "for-service", &to_pod).context("the pod's own address")?;
    stage.kubectl(&["label", "service", "productpage", "istio.io/use-waypoint-"])?;
    waypoint::delete(stage, "for-service")?;

    waypoint::apply(stage, "for-workload", &["--for", "workload"])?;
    stage.kubectl(&[
        "label",
        "pod",
        &front.name,
        "istio.io/use-waypoint=for-workload",
    ])?;
    waypoint::is_passed(stage, "for-workload", "productpage-v1", to_pod)?;
    not_passed(stage, "for-workload", &|| page(stage, "sleep")).context("the service")?;
    stage.kubectl(&["label", "pod", &front.name, "istio.io/use-waypoint-"])?;
    waypoint::delete(stage, "for-workload")?;
    directly(stage)
}

/// A Gateway's annotation says which image its waypoint runs.
pub(crate) fn image_by_annotation(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let cluster = stage
        .made()
        .context("images can't be named anew on the nodes of this cluster")?;
    for node in cluster.nodes() {
        let words = [
            "-n",
            "k8s.io",
            "images",
            "tag",
            "--force",
            IMAGE,
            OTHER_IMAGE,
        ];
        let mut command: Command = node.command("ctr");
        process::run(command.args(words), Duration::from_secs(30))?.well("ctr images tag")?;
    }
    let gateway = format!(
        r#"{{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{{"name":"annotated","namespace":"{NAMESPACE}","labels":{{"istio.io/waypoint-for":"service"}},"annotations":{{"sidecar.istio.io/proxyImage":"{OTHER_IMAGE}"}}}},"spec":{{"gatewayClassName":"istio-waypoint","listeners":[{{"name":"mesh","port":15008,"protocol":"HBONE"}}]}}}}"#
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("annotated.json");
    std::fs::write(&file, gateway)?;
    stage.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
    until("the annotated waypoint's Deployment", IN_FORCE, || {
        stage.look(&["get", "deployment", "annotated", "-n", NAMESPACE])
    })?;
    waypoint::ready(stage, "annotated", 1)?;
    for pod in waypoint::pods(stage, "annotated")? {
        ensure!(pod.image == OTHER_IMAGE, "{} runs {}", pod.name, pod.image);
    }
    waypoint::delete(stage, "annotated")
}

/// The front page, once.
pub(crate) fn page(stage: &Stage, from: &str) -> Result<()> {
    let verdict = bookstore::ask_quietly(stage, from, FRONT, &[])?;
    ensure!(verdict == Verdict::Title, "{from}: {verdict}");
    Ok(())
}

fn served_soon(stage: &Stage, from: &str) -> Result<()> {
    until("the page served", IN_FORCE, || page(stage, from))
}

fn denied_soon(stage: &Stage, from: &str, words: &[&str]) -> Result<()> {
    until("the policy in force", IN_FORCE, || {
        let (status, body) = bookstore::answer(stage, from, words)?;
        ensure!(
            (status, body.as_str()) == DENIED,
            "{from}: {status} {body:?}"
        );
        Ok(())
    })
}

/// That what `call` does passes no pod of the waypoint.
fn not_passed(stage: &Stage, name: &str, call: &dyn Fn() -> Result<()>) -> Result<()> {
    let before = mesh::Connections::now(stage)?;
    call()?;
    let opened = mesh::Connections::now(stage)?.since(&before);
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
        let before = mesh::Connections::now(stage)?;
        page(stage, "sleep")?;
        let opened = mesh::Connections::now(stage)?.since(&before);
        let direct = opened
            .of("source", "sleep")
            .of("destination", "productpage-v1");
        ensure!(direct.total() > 0, "opened: {}", opened.told());
        Ok(())
    })
}

/// Applies rules, and waits until none of 40 requests is answered by a version that they exclude.
pub(crate) fn rules(stage: &Stage, manifests: &[&str], excluded: &str, most: u64) -> Result<()> {
    for manifest in manifests {
        stage.apply(manifest)?;
    }
    until("the rules in force", IN_FORCE, || {
        let outcomes = reviews(stage, 40, None)?;
        let astray = outcomes.of_kind(&format!("200 reviews-{excluded}"));
        ensure!(astray <= most, "{outcomes}");
        Ok(())
    })
}

pub(crate) fn no_rules(stage: &Stage) -> Result<()> {
    let all = ["virtualservice,destinationrule", "--all", "-n", NAMESPACE];
    stage.kubectl(&[&["delete"], all.as_slice()].concat())?;
    until("no rules in force", IN_FORCE, || {
        let outcomes = reviews(stage, 40, None)?;
        let each = [1, 2, 3].map(|n| version(&outcomes, n));
        ensure!(each.iter().all(|count| *count > 0), "{outcomes}");
        Ok(())
    })
}

/// So many requests for reviews, and by which pods they were answered.
fn reviews(stage: &Stage, count: u32, header: Option<&str>) -> Result<Outcomes> {
    let count = count.to_string();
    let mut words = vec![
        REVIEWS, "--count", &count, "--pause", "0", "--member", "podname",
    ];
    if let Some(header) = header {
        words.extend(["-H", header]);
    }
    Load::run(stage, "sleep", &words)
}

/// How many answers were of this version of reviews.
fn version(outcomes: &Outcomes, version: u8) -> u64 {
    outcomes.of_kind(&format!("200 reviews-v{version}-"))
}
