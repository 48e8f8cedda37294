//! A WasmPlugin at the namespace's waypoint, under istiod: fetched over HTTP, followed in its
//! configuration without a failed request, closed or open where its code can't be had, and taken away.

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, NAMESPACE};
use e2e::mesh::IN_FORCE;
use e2e::stage::Stage;
use e2e::story::routing::REVIEWS;
use e2e::story::waypoint::WAYPOINT;
use e2e::until::until;
use e2e::waypoint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cases::Play;
use crate::waypoint_faults::Both;

/// Where the module is served, and its name there.
const MODULES: &str = "modules";
const MODULE: &str = "guest.wasm";
/// The plugin, and the one that names a module which is not there.
const GUARD: &str = "guard";
const ABSENT: &str = "absent";
/// Has the plugin say in a header of the answer how it is configured.
const TELL: &str = "x-do-answer: configured";
const TOLD: &str = "x-configured: ";

/// The whole of it; nothing is left behind.
pub(crate) fn told(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let module = plugins::guest()?;
    let code = std::fs::read(&module).with_context(|| module.display().to_string())?;
    let digest = format!("{:x}", Sha256::digest(code));
    let file = format!("--from-file={MODULE}={}", module.display());
    stage.kubectl(&["create", "configmap", MODULES, &file])?;
    stage.apply(MODULES)?;
    let served = format!("deployment/{MODULES}");
    stage.kubectl(&["rollout", "status", &served, "--timeout=60s"])?;

    let url = format!("http://{MODULES}.{NAMESPACE}.svc.cluster.local/{MODULE}");
    changes_under_load(stage, &url, &digest)?;
    wrong_digest(stage, &url, &digest)?;
    unreachable(stage)?;

    stage.delete(MODULES)?;
    stage.kubectl(&["delete", "configmap", MODULES]).map(drop)
}

/// It comes, changes and is in force under load, and no request fails by that.
fn changes_under_load(stage: &Stage, url: &str, digest: &str) -> Result<()> {
    let both = Both::start(stage)?;
    for tag in ["one", "two", "three"] {
        guard(stage, url, digest, tag)?;
        in_force(stage, tag)?;
    }
    both.ends_without_a_failure()?;
    let (status, body) = bookstore::answer(stage, "sleep", &[REVIEWS, "-H", "x-do: answer"])?;
    ensure!(
        (status, body.as_str()) == (418, "answered by a plugin"),
        "it answers by itself: {status} {body}"
    );
    // What it makes of the path is what the service is asked for.
    let (status, body) = bookstore::answer(stage, "sleep", &[REVIEWS, "-H", "x-do: path"])?;
    ensure!(status == 404, "it changes a request: {status} {body}");
    Ok(())
}

/// Code that is another than it must be lets nobody pass, the log says why, and the right digest
/// heals it.
fn wrong_digest(stage: &Stage, url: &str, digest: &str) -> Result<()> {
    let wrong = "0".repeat(64);
    guard(stage, url, &wrong, "three")?;
    until("requests denied without the plugin", IN_FORCE, || {
        let (status, body) = bookstore::answer_quietly(stage, "sleep", &[REVIEWS])?;
        ensure!(
            (status, body.as_str()) == (403, "RBAC: access denied"),
            "{status} {body}"
        );
        Ok(())
    })?;
    logged(
        stage,
        &[GUARD, "a plugin's code can't be had", &wrong, digest],
    )?;
    guard(stage, url, digest, "four")?;
    in_force(stage, "four")?;
    stage.kubectl(&["delete", "wasmplugin", GUARD, "-n", NAMESPACE])?;
    until("answers without the plugin", IN_FORCE, || {
        let answer = asked(stage)?;
        ensure!(
            answer.contains("200 OK") && !answer.contains(TOLD),
            "{answer}"
        );
        Ok(())
    })
}

/// At one service, from a server that isn't there: whoever fails open passes.
fn unreachable(stage: &Stage) -> Result<()> {
    let nowhere = format!("http://nowhere.{NAMESPACE}.svc.cluster.local/{MODULE}");
    plugin(
        stage,
        ABSENT,
        &json!({
            "targetRefs": [{"kind": "Service", "group": "", "name": "reviews"}],
            "url": nowhere,
            "failStrategy": "FAIL_OPEN",
        }),
    )?;
    logged(stage, &[ABSENT, "a plugin's code can't be had", &nowhere])?;
    let (status, body) = bookstore::answer(stage, "sleep", &[REVIEWS, "-H", "x-do: answer"])?;
    ensure!(status == 200, "{status} {body}");
    stage
        .kubectl(&["delete", "wasmplugin", ABSENT, "-n", NAMESPACE])
        .map(drop)
}

/// The plugin for all that passes the waypoint.
fn guard(stage: &Stage, url: &str, sha256: &str, tag: &str) -> Result<()> {
    let gateway = "gateway.networking.k8s.io";
    plugin(
        stage,
        GUARD,
        &json!({
            "targetRefs": [{"kind": "Gateway", "group": gateway, "name": WAYPOINT}],
            "url": url,
            "sha256": sha256,
            "failStrategy": "FAIL_CLOSE",
            "pluginConfig": {"tag": tag},
        }),
    )
}

fn plugin(stage: &Stage, name: &str, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    });
    stage.apply_text(&object.to_string())
}

fn in_force(stage: &Stage, tag: &str) -> Result<()> {
    let says = format!("{TOLD}{}", json!({"tag": tag}));
    until(&format!("the plugin with the tag {tag}"), IN_FORCE, || {
        let answer = asked(stage)?;
        ensure!(answer.contains(&says), "{answer}");
        Ok(())
    })
}

/// An answer with its head, for which the plugin was asked how it is configured.
fn asked(stage: &Stage) -> Result<String> {
    let (_, answer) = bookstore::answer_quietly(stage, "sleep", &["-i", REVIEWS, "-H", TELL])?;
    Ok(answer)
}

/// Waits for a line of the waypoint's log with all of these words.
fn logged(stage: &Stage, words: &[&str]) -> Result<()> {
    until(
        &format!("a line of the log with {words:?}"),
        IN_FORCE,
        || {
            let pods = waypoint::pods(stage, WAYPOINT)?;
            let pod = pods.first().context("no waypoint")?;
            let log = stage.look(&["logs", "-n", NAMESPACE, &pod.name, "--tail=500"])?;
            let mut lines = log.lines();
            let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
            let line = line.with_context(|| format!("none of {} lines", log.lines().count()))?;
            stage.narrator().evidence(line);
            Ok(())
        },
    )
}
