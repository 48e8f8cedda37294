//! The stories S1 to S3, and below them those of waypoints, policy and routing: what is done, and what
//! must be seen. The demo tells them, the tests run them; both fail where something else is seen.

pub mod policy;
pub mod routing;
pub mod waypoint;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::bookstore::{self, Door, FRONT, PAGE, Pod, Verdict};
use crate::mesh::{self, Connections, IN_FORCE};
use crate::stage::Stage;
use crate::until::until;
use crate::wire::{Capture, HBONE, Seen};

/// How often the page is asked for under a capture: enough that each version of reviews is met.
const PAGES: usize = 6;
/// The port of the echoes: a connection opened before labelling goes on there, as it was.
const ECHO: u16 = 9000;

/// A word that nothing else on the machine says. It goes along as the request's identifier, which
/// the application hands on from service to service.
#[must_use]
pub fn marker() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    format!(
        "culvert-marker-{:x}-{:x}",
        std::process::id(),
        now.as_nanos()
    )
}

/// The three requests of the documents: from sleep, from notsleep, and through the gateway.
///
/// # Errors
/// When one of them can't be made at all.
pub fn three_requests(stage: &Stage, door: &Door) -> Result<[Verdict; 3]> {
    Ok([
        bookstore::ask(stage, "sleep", FRONT)?,
        bookstore::ask(stage, "notsleep", FRONT)?,
        bookstore::ask_gateway(stage, door)?,
    ])
}

/// Asks for pages that cross the nodes, with `marker`, under a capture. `None` where the nodes are
/// not at hand.
///
/// # Errors
/// When a page does not come or the capture fails.
pub fn pages_under_capture(stage: &Stage, marker: &str) -> Result<Option<Seen>> {
    let capture = Capture::start(stage)?;
    if let Some(capture) = &capture {
        stage.narrator().say(&format!(
            "  Pages with a marker in the header x-request-id, which every service hands on, while\n  \
             tcpdump listens on {}, where everything between the nodes passes:",
            capture.place()
        ));
        stage
            .narrator()
            .command(&format!("curl -H 'x-request-id: {marker}' {PAGE}"));
    }
    let header = format!("x-request-id: {marker}");
    for client in ["sleep", "notsleep"] {
        for _ in 0..PAGES {
            let verdict = bookstore::ask_quietly(stage, client, PAGE, &["-H", &header])?;
            ensure!(
                verdict == Verdict::Title,
                "{client} asked for {PAGE}: {verdict}"
            );
        }
    }
    capture.map(|capture| capture.stop(marker)).transpose()
}

/// S1: outside the mesh everyone is served, in plain text that anyone between the nodes can read.
///
/// # Errors
/// When it is not so.
pub fn s1(stage: &Stage, door: &Door) -> Result<()> {
    let pods = bookstore::pods(stage)?;
    bookstore::crosses_between_nodes(&pods)?;
    everyone_is_served(stage, door)?;
    let Some(seen) = pages_under_capture(stage, &marker())? else {
        stage.narrator().left_out(NO_CAPTURE);
        return Ok(());
    };
    ensure!(
        seen.marked > 0,
        "the marker was not seen in plain text, but no mesh is there: {seen}"
    );
    ensure!(
        !seen.ports.contains_key(&HBONE),
        "HBONE outside the mesh: {seen}"
    );
    stage
        .narrator()
        .evidence(&format!("between the nodes: {seen}"));
    Ok(())
}

/// S2: with one label the same requests are answered the same, nothing was restarted, and between
/// the nodes there is only TLS. `before` are the pods as they were outside the mesh.
///
/// # Errors
/// When it is not so.
pub fn s2(stage: &Stage, door: &Door, before: &[Pod]) -> Result<()> {
    mesh::enrol(stage)?;
    everyone_is_served(stage, door)?;
    bookstore::nothing_restarted(before, &bookstore::pods(stage)?)?;
    stage.kubectl(&["get", "pods", "-o", "wide"])?;
    stage
        .narrator()
        .evidence("the same pods as before, none restarted, all ready");
    let Some(seen) = pages_under_capture(stage, &marker())? else {
        stage.narrator().left_out(NO_CAPTURE);
        return Ok(());
    };
    only_tls(&seen)?;
    stage
        .narrator()
        .evidence(&format!("between the nodes: {seen}"));
    if seen.ports.contains_key(&ECHO) {
        stage.narrator().say(&format!(
            "    (port {ECHO} is the connection that was opened before the label; it goes on as it was)"
        ));
    }
    Ok(())
}

/// That a capture shows HBONE under TLS and nothing else but the echoes' older connections.
///
/// # Errors
/// When it shows something else.
pub fn only_tls(seen: &Seen) -> Result<()> {
    ensure!(
        seen.marked == 0,
        "the marker was readable between the nodes: {seen}"
    );
    ensure!(
        seen.not_tls == 0,
        "{} connections to port {HBONE} without TLS: {seen}",
        seen.not_tls
    );
    ensure!(
        seen.ports.contains_key(&HBONE),
        "nothing on port {HBONE}: {seen}"
    );
    let other = seen
        .ports
        .keys()
        .find(|port| ![HBONE, ECHO].contains(*port));
    ensure!(other.is_none(), "something beside HBONE: {seen}");
    Ok(())
}

/// Calls between pods of one node are mutual TLS too: sleep and the product page share theirs.
///
/// # Errors
/// When the metrics of the destination say otherwise, or nothing.
pub fn same_node(stage: &Stage) -> Result<()> {
    let pods = bookstore::pods(stage)?;
    let node = |app: &str| {
        pods.iter()
            .find(|pod| pod.app == app)
            .map(|pod| pod.node.clone())
    };
    ensure!(
        node("sleep") == node("productpage"),
        "sleep and productpage are on different nodes"
    );
    let before = Connections::now(stage)?;
    let verdict = bookstore::ask(stage, "sleep", FRONT)?;
    ensure!(verdict == Verdict::Title, "{verdict}");
    let opened = until("the connection in the metrics", IN_FORCE, || {
        let opened = Connections::now(stage)?.since(&before);
        let opened = opened
            .of("source", "sleep")
            .of("destination", "productpage-v1");
        ensure!(
            opened.of("reporter", "destination").total() > 0,
            "only {}",
            opened.told()
        );
        Ok(opened)
    })?;
    let secured = opened.of("policy", "mutual_tls");
    ensure!(
        secured.total() == opened.total(),
        "not all of them secured: {}",
        opened.told()
    );
    let told = secured.of("reporter", "destination").told();
    stage.narrator().evidence(&format!(
        "on one node it is no different, say the metrics: {told}"
    ));
    Ok(())
}

/// S3: with the policy, sleep and the gateway are served, notsleep is reset, and the log says which
/// policy it was.
///
/// # Errors
/// When it is not so.
pub fn s3(stage: &Stage, door: &Door) -> Result<()> {
    stage.apply("productpage-viewer")?;
    until("the policy in force", IN_FORCE, || {
        let verdict = bookstore::ask_quietly(stage, "notsleep", FRONT, &[])?;
        ensure!(verdict == Verdict::Reset, "notsleep: {verdict}");
        Ok(())
    })?;
    let [sleep, notsleep, gateway] = three_requests(stage, door)?;
    ensure!(sleep == Verdict::Title, "sleep: {sleep}");
    ensure!(notsleep == Verdict::Reset, "notsleep: {notsleep}");
    ensure!(gateway == Verdict::Title, "the gateway: {gateway}");
    let line = mesh::logged(stage, &["productpage-viewer", "notsleep"])
        .context("the denied request's line with the policy's name")?;
    stage
        .narrator()
        .evidence("ztunnel's log names the caller and the policy:");
    stage.narrator().output(&line);
    Ok(())
}

/// The front page, asked for once by a client.
///
/// # Errors
/// When something else is answered.
pub fn page(stage: &Stage, from: &str) -> Result<()> {
    let verdict = bookstore::ask_quietly(stage, from, FRONT, &[])?;
    ensure!(verdict == Verdict::Title, "{from}: {verdict}");
    Ok(())
}

/// That all three requests are answered with the page.
///
/// # Errors
/// Names the one that is not.
pub fn everyone_is_served(stage: &Stage, door: &Door) -> Result<()> {
    let verdicts = three_requests(stage, door)?;
    for (who, verdict) in ["sleep", "notsleep", "the gateway"].iter().zip(verdicts) {
        ensure!(verdict == Verdict::Title, "{who}: {verdict}");
    }
    Ok(())
}

const NO_CAPTURE: &str = "no packet capture here: the nodes of your cluster can't be looked into \
    from this machine";
