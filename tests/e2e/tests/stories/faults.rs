//! What must hold when something is taken away: a right, the control plane, ztunnel itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::bookstore::{self, FRONT, Verdict};
use e2e::held::Held;
use e2e::mesh::{self, IN_FORCE};
use e2e::stage::Stage;
use e2e::until::until;
use e2e::wire::Capture;
use e2e::{node, story};
use serde_json::Value;

use crate::cases::Play;

/// A policy that denies notsleep closes notsleep's open connection, and not sleep's.
pub(crate) fn policy_closes(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let mut allowed = Held::open(stage, "sleep", "echo-left:9000", "allowed")?;
    let mut denied = Held::open(stage, "notsleep", "echo-left:9000", "denied")?;
    allowed.goes_on(2)?;
    denied.goes_on(2)?;
    stage.apply("echo-viewer")?;
    denied
        .closed_within(IN_FORCE)
        .context("notsleep's connection under the policy")?;
    allowed
        .goes_on(10)
        .context("sleep's connection under the policy")?;
    ensure!(
        Held::open(stage, "notsleep", "echo-left:9000", "denied").is_err(),
        "notsleep could connect anew under a policy that denies it"
    );
    allowed.finish()?;
    stage.kubectl(&["delete", "authorizationpolicy", "echo-viewer"])?;
    Ok(())
}

/// Without a control plane everything stays as it was; with it again, what was changed meanwhile
/// comes into force.
pub(crate) fn control_stopped(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    mesh::stop_control_plane(stage)?;
    let stopped = stays_as_it_was(play).context("without the control plane");
    // Started again in any case: the stories after this one need it.
    mesh::start_control_plane(stage)?;
    stopped?;
    until(
        "the deleted policy out of force",
        Duration::from_secs(60),
        || {
            let verdict = bookstore::ask_quietly(stage, "notsleep", FRONT, &[])?;
            ensure!(verdict == Verdict::Title, "notsleep: {verdict}");
            Ok(())
        },
    )?;
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}

fn stays_as_it_was(play: &Play) -> Result<()> {
    let stage = &play.stage;
    stage.kubectl(&["delete", "authorizationpolicy", "productpage-viewer"])?;
    for _ in 0..3 {
        let [sleep, notsleep, gateway] = story::three_requests(stage, &play.door)?;
        ensure!(sleep == Verdict::Title, "sleep: {sleep}");
        ensure!(gateway == Verdict::Title, "the gateway: {gateway}");
        ensure!(
            notsleep == Verdict::Reset,
            "the last policy is not kept: notsleep: {notsleep}"
        );
    }
    Ok(())
}

/// ztunnel is killed on the caller's node while calls go on: some are refused, none hangs, none
/// goes out in plain text, and all are answered once it is back.
pub(crate) fn ztunnel_killed(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let cluster = stage
        .made()
        .context("the nodes of this cluster can't be looked into")?;
    let pods = bookstore::pods(stage)?;
    let caller = pods
        .iter()
        .find(|pod| pod.app == "notsleep")
        .context("no pod of notsleep")?;
    let node = cluster
        .nodes()
        .iter()
        .find(|node| node.name == caller.node)
        .with_context(|| format!("no node is called {}", caller.node))?;
    let marker = story::marker();
    let capture = Capture::start(stage)?.context("no capture")?;
    let mut load = Load::start(stage, "notsleep", &marker)?;
    load.until("answers before the fault", |lately| lately.only("200"))?;
    let process = node::ztunnel_process(stage, node)?;
    node::run(node, "kill", &["-9", &process])?;
    load.until("a refused call", |lately| lately.any_failure())?;
    mesh::ztunnels_ready(stage)?;
    load.until("only answers again", |lately| lately.only("200"))?;
    let total = load.finish()?;
    let hung = total.get("exit-28").copied().unwrap_or(0);
    ensure!(hung == 0, "{hung} calls hung: {total:?}");
    let seen = capture.stop(&marker)?;
    story::only_tls(&seen)?;
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}

/// `bookinfo load` in a pod, followed line by line.
struct Load {
    child: Child,
    lines: Receiver<Value>,
    total: Option<BTreeMap<String, u64>>,
}

/// The outcomes of a quarter of a second.
struct Lately(BTreeMap<String, u64>);

impl Lately {
    fn only(&self, outcome: &str) -> bool {
        self.0.len() == 1 && self.0.contains_key(outcome)
    }

    fn any_failure(&self) -> bool {
        self.0.keys().any(|outcome| outcome.starts_with("exit-"))
    }
}

impl Load {
    fn start(stage: &Stage, from: &str, marker: &str) -> Result<Self> {
        let mut child = stage
            .kubectl_command()
            .args([
                "exec",
                &format!("deploy/{from}"),
                "--",
                "bookinfo",
                "load",
                FRONT,
            ])
            .args(["--for", "40", "--marker", marker])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("kubectl exec could not be started")?;
        let stdout = child.stdout.take().context("kubectl has no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            total: None,
        })
    }

    /// Reads on until one line's outcomes are as `wanted`.
    fn until(&mut self, what: &str, wanted: impl Fn(&Lately) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        let mut last = Value::Null;
        while Instant::now() < end {
            let Ok(line) = self.lines.recv_timeout(Duration::from_secs(10)) else {
                bail!("the load ended or says nothing while waiting for {what}; last: {last}");
            };
            if line.get("total").is_some() {
                self.total = Some(counts(&line["total"]));
                bail!("the load is over, and there was not: {what}; last: {last}");
            }
            if wanted(&Lately(counts(&line["outcomes"]))) {
                return Ok(());
            }
            last = line;
        }
        bail!("not within 30 s: {what}; last: {last}")
    }

    /// Lets the load come to its end; gives all its outcomes.
    fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        while self.total.is_none() {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(45))
                .context("the load did not come to its end")?;
            if line.get("total").is_some() {
                self.total = Some(counts(&line["total"]));
            }
        }
        self.child.wait()?;
        self.total.take().context("no total")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Ended already, if it fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn counts(outcomes: &Value) -> BTreeMap<String, u64> {
    outcomes
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(outcome, count)| Some((outcome.clone(), count.as_u64()?)))
        .collect()
}
