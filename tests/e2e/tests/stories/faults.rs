//! What must hold when something is taken away: a right, the control plane, ztunnel itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, FRONT, Verdict};
use e2e::held::Held;
use e2e::load::Load;
use e2e::mesh::{self, IN_FORCE};
use e2e::stage::SYSTEM;
use e2e::until::until;
use e2e::wire::Capture;
use e2e::{node, story};

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
    let pods = bookstore::pods(stage)?;
    let caller = pods
        .iter()
        .find(|pod| pod.app == "notsleep")
        .context("no pod of notsleep")?;
    let ztunnel = mesh::ztunnel_on(stage, &caller.node)?;
    let marker = story::marker();
    let capture = Capture::start(stage)?.context("no capture")?;
    let mut load = Load::start(
        stage,
        "notsleep",
        &[FRONT, "--for", "40", "--marker", &marker],
    )?;
    load.until("answers before the fault", |lately| lately.only("200"))?;
    node::kill(stage, SYSTEM, &ztunnel)?;
    load.until("a refused call", |lately| lately.any_failure())?;
    mesh::ztunnels_ready(stage)?;
    load.until("only answers again", |lately| lately.only("200"))?;
    let total = load.finish()?;
    let hung = total.get("exit-28");
    ensure!(hung == 0, "{hung} calls hung: {total}");
    let seen = capture.stop(&marker)?;
    story::only_tls(&seen)?;
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}
