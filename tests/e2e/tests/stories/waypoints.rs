//! What of the waypoints' stories only tests tell: what istiod says of a waypoint, and which image one
//! runs. The rest is `e2e::story`, which the demo tells too.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, NAMESPACE};
use e2e::mesh::IN_FORCE;
use e2e::story::waypoint::WAYPOINT;
use e2e::until::until;
use e2e::{Control, Stage, mesh, process, story, waypoint};
use serde_json::Value;

use crate::cases::Play;

/// The image that `xtask image` makes, and another name for it.
const IMAGE: &str = "culvert.local/waypoint:dev";
const OTHER_IMAGE: &str = "culvert.local/another-waypoint:dev";

/// S4 for the namespace; the waypoint is ours, and nothing was restarted.
pub(crate) fn s4_namespace(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    story::waypoint::s4_namespace(stage)?;
    for pod in waypoint::pods(stage, WAYPOINT)? {
        ensure!(pod.image == IMAGE, "{} runs {}", pod.name, pod.image);
    }
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}

/// S16: the control plane, whichever it is, drives the waypoint, which acknowledges all that it is sent.
pub(crate) fn s16(play: &mut Play) -> Result<()> {
    match play.stage.control() {
        Control::Culvert => s16_under_culvert(&play.stage),
        Control::Istiod => s16_under_istiod(&play.stage),
    }
}

/// Control counts what each kind of client answered; clusters and listeners go to waypoints alone.
fn s16_under_culvert(stage: &Stage) -> Result<()> {
    let answers = |kind, answer| {
        let labels = [("type", kind), ("answer", answer)];
        mesh::control_counts(stage, "culvert_control_xds_answers_total", &labels)
    };
    until("every push acknowledged", IN_FORCE, || {
        for kind in ["cds", "eds", "lds"] {
            let (taken, refused) = (answers(kind, "ack")?, answers(kind, "nack")?);
            ensure!(
                taken > 0 && refused == 0,
                "{kind}: {taken} acknowledged, {refused} refused"
            );
        }
        Ok(())
    })
}

/// istiod, as it is, has sent the waypoint its configuration, and the waypoint has acknowledged
/// all of it. istioctl asks istiod itself.
fn s16_under_istiod(stage: &Stage) -> Result<()> {
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

/// The waypoint goes; nothing else does.
pub(crate) fn removed(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    story::waypoint::removed(stage)?;
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
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
    stage.apply_text(&gateway)?;
    until("the annotated waypoint's Deployment", IN_FORCE, || {
        stage.look(&["get", "deployment", "annotated", "-n", NAMESPACE])
    })?;
    waypoint::ready(stage, "annotated", 1)?;
    for pod in waypoint::pods(stage, "annotated")? {
        ensure!(pod.image == OTHER_IMAGE, "{} runs {}", pod.name, pod.image);
    }
    waypoint::delete(stage, "annotated")
}
