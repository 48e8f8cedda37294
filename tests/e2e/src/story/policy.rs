//! The stories of policy behind a waypoint: S5, in today's form and in Istio 1.18's, and what L4
//! policy at the destination makes of a waypoint. They leave no policy behind.

use anyhow::{Context, Result, ensure};

use crate::bookstore::{self, FRONT, NAMESPACE, Verdict};
use crate::mesh::IN_FORCE;
use crate::stage::Stage;
use crate::story::page;
use crate::story::routing::REVIEWS;
use crate::until::until;

/// What a denied request is answered with.
const DENIED: (u16, &str) = (403, "RBAC: access denied");

/// S5: the product page's policy, at the waypoint, tells methods apart.
///
/// # Errors
/// When somebody is let in or kept out who should not be.
pub fn s5(stage: &Stage) -> Result<()> {
    // The same name as the L4 policy of S3, which would let in nobody but sleep, and not the waypoint.
    stage.kubectl(&["delete", "authorizationpolicy", "--all", "-n", NAMESPACE])?;
    tells_methods_apart(stage, "waypoint-viewer")
}

/// S5 with a policy that `manifest` holds, under the name `productpage-viewer`.
///
/// # Errors
/// When somebody is let in or kept out who should not be.
pub fn tells_methods_apart(stage: &Stage, manifest: &str) -> Result<()> {
    stage.apply(manifest)?;
    until("the policy in force", IN_FORCE, || {
        let answer = bookstore::answer_quietly(stage, "notsleep", &[FRONT])?;
        ensure!(is_denied(&answer), "notsleep: {answer:?}");
        Ok(())
    })?;
    let told = by_method(stage);
    stage.kubectl(&["delete", "authorizationpolicy", "productpage-viewer"])?;
    told?;
    until("the page served", IN_FORCE, || page(stage, "notsleep"))
}

fn by_method(stage: &Stage) -> Result<()> {
    let asks: [(&str, &[&str]); 3] = [
        ("sleep", &["-X", "DELETE", FRONT]),
        ("notsleep", &[FRONT]),
        ("notsleep", &["-X", "DELETE", FRONT]),
    ];
    // Told once, and asked again: every worker of the waypoint must say the same.
    for ask in [
        bookstore::answer,
        bookstore::answer_quietly,
        bookstore::answer_quietly,
    ] {
        for (from, words) in asks {
            let answer = ask(stage, from, words)?;
            ensure!(is_denied(&answer), "{from} {words:?}: {answer:?}");
        }
        page(stage, "sleep")?;
    }
    let verdict = bookstore::ask(stage, "sleep", FRONT)?;
    ensure!(verdict == Verdict::Title, "sleep, GET: {verdict}");
    // What sleep may not do to the product page it may do to another service.
    let (status, _) = bookstore::answer_quietly(stage, "sleep", &["-X", "DELETE", REVIEWS])?;
    ensure!(status != DENIED.0, "the policy is in force for reviews too");
    stage.narrator().evidence(
        "sleep may GET and not DELETE, notsleep nothing; other services are not concerned",
    );
    Ok(())
}

fn is_denied((status, body): &(u16, String)) -> bool {
    (*status, body.as_str()) == DENIED
}

/// L4 policy at the destination holds, and sees the waypoint as the source: through it the page is
/// served, and a call past it is reset.
///
/// # Errors
/// When it is not so.
pub fn sees_the_waypoint(stage: &Stage) -> Result<()> {
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
