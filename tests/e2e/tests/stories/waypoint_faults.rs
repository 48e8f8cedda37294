//! What must hold when pods of a waypoint, or of a service behind it, come and go under load, and when
//! the control plane stops: no request fails but those in flight in a process that was killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, NAMESPACE};
use e2e::load::{Load, Outcomes};
use e2e::stage::Stage;
use e2e::story::routing::{self, REVIEWS};
use e2e::story::waypoint::WAYPOINT;
use e2e::until::until;
use e2e::{mesh, node, waypoint};

use crate::cases::Play;

/// Requests under way at the same time, of each kind of load.
const PARALLEL: u64 = 4;
/// Longest that a load runs; each story ends it before.
const AT_MOST: &str = "300";

/// Two loads: one that keeps its connections, and one that opens a new one for each request.
pub(crate) struct Both {
    keeping: Load,
    opening: Load,
}

impl Both {
    pub(crate) fn start(stage: &Stage) -> Result<Self> {
        let parallel = PARALLEL.to_string();
        let words = [REVIEWS, "--for", AT_MOST, "--parallel", &parallel];
        let keeping = [words.as_slice(), &["--keep"]].concat();
        let mut both = Self {
            keeping: Load::start(stage, "sleep", &keeping)?,
            opening: Load::start(stage, "notsleep", &words)?,
        };
        both.goes_well("before")?;
        Ok(both)
    }

    fn goes_well(&mut self, when: &str) -> Result<()> {
        for load in [&mut self.keeping, &mut self.opening] {
            load.until(&format!("answers {when}"), |lately| lately.only("200"))?;
        }
        Ok(())
    }

    /// Ends both, and gives what failed.
    fn end(self) -> Result<[Outcomes; 2]> {
        Ok([self.keeping.end()?, self.opening.end()?])
    }

    pub(crate) fn ends_without_a_failure(self) -> Result<()> {
        for outcomes in self.end()? {
            ensure!(outcomes.only("200"), "not only 200: {outcomes}");
            ensure!(
                outcomes.all() > 100,
                "too few to prove anything: {outcomes}"
            );
        }
        Ok(())
    }
}

/// The control plane stops under load: the waypoint goes on by the rules that it has, and what was
/// taken away meanwhile is out of force once the control plane is back.
pub(crate) fn control_stopped(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    routing::rules(stage, &["reviews-subsets", "reviews-jason"], "v3")?;
    let mut both = Both::start(stage)?;
    mesh::stop_control_plane(stage)?;
    let without = (|| {
        stage.kubectl(&["delete", "virtualservice", "reviews", "-n", NAMESPACE])?;
        both.goes_well("without the control plane")?;
        let outcomes = routing::reviews(stage, 100, None)?;
        ensure!(
            routing::version(&outcomes, 1) == 100,
            "the rules are not kept: {outcomes}"
        );
        Ok(())
    })();
    // Started again in any case: the stories after this one need it.
    mesh::start_control_plane(stage)?;
    without?;
    routing::no_rules(stage)?;
    both.goes_well("with the control plane again")?;
    both.ends_without_a_failure()
}

/// 1 → 3 → 1.
pub(crate) fn scaled(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let mut both = Both::start(stage)?;
    waypoint::scale(stage, WAYPOINT, 3)?;
    both.goes_well("from three")?;
    until(
        "requests through each of three",
        Duration::from_secs(30),
        || {
            for pod in waypoint::pods(stage, WAYPOINT)? {
                let path = format!(
                    "/api/v1/namespaces/{NAMESPACE}/pods/{}:15020/proxy/stats/prometheus",
                    pod.name
                );
                let metrics = stage.look(&["get", "--raw", &path])?;
                ensure!(
                    metrics.contains("istio_requests_total{"),
                    "{} has served nothing",
                    pod.name
                );
            }
            Ok(())
        },
    )?;
    waypoint::scale(stage, WAYPOINT, 1)?;
    both.goes_well("from one again")?;
    both.ends_without_a_failure()
}

/// Every pod replaced by a new one.
pub(crate) fn rolled(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let before = waypoint::pods(stage, WAYPOINT)?;
    let mut both = Both::start(stage)?;
    let deployment = format!("deployment/{WAYPOINT}");
    stage.kubectl(&["-n", NAMESPACE, "rollout", "restart", &deployment])?;
    stage.kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &deployment,
        "--timeout=120s",
    ])?;
    waypoint::ready(stage, WAYPOINT, 1)?;
    let now = waypoint::pods(stage, WAYPOINT)?;
    ensure!(
        before
            .iter()
            .all(|old| now.iter().all(|new| new.name != old.name)),
        "not rolled"
    );
    both.goes_well("after the roll")?;
    both.ends_without_a_failure()
}

/// One of two is killed: what it was answering fails, and nothing else.
pub(crate) fn killed(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    waypoint::scale(stage, WAYPOINT, 2)?;
    let mut both = Both::start(stage)?;
    let victim = waypoint::pods(stage, WAYPOINT)?
        .into_iter()
        .next()
        .context("no waypoint")?;
    node::kill(stage, NAMESPACE, &victim.name)?;
    until(
        "the killed one started again",
        Duration::from_secs(60),
        || {
            let now = waypoint::pods(stage, WAYPOINT)?;
            let again = now
                .iter()
                .any(|pod| pod.name == victim.name && pod.restarts > victim.restarts);
            ensure!(again, "{} was not restarted", victim.name);
            Ok(())
        },
    )?;
    waypoint::ready(stage, WAYPOINT, 2)?;
    both.goes_well("after the kill")?;
    for outcomes in both.end()? {
        let failed = outcomes.all() - outcomes.get("200");
        ensure!(
            failed <= PARALLEL,
            "{failed} failed, at most {PARALLEL} were in flight: {outcomes}"
        );
    }
    waypoint::scale(stage, WAYPOINT, 1)
}

/// The pods behind a service go one after another, each replaced.
pub(crate) fn destination_deleted(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let of_reviews = |pods: Vec<bookstore::Pod>| {
        let ours = pods.into_iter().filter(|pod| pod.app == "reviews");
        ours.collect::<Vec<_>>()
    };
    let before = of_reviews(bookstore::pods(stage)?);
    let mut both = Both::start(stage)?;
    for pod in &before {
        stage.kubectl(&["delete", "pod", &pod.name, "--wait=true"])?;
        until("its successor", Duration::from_secs(60), || {
            let now = of_reviews(bookstore::pods(stage)?);
            let ready = now.iter().filter(|pod| pod.ready && pod.captured).count();
            ensure!(ready == before.len(), "{ready} of {} ready", before.len());
            Ok(())
        })?;
    }
    both.goes_well("from their successors")?;
    let ended = both.ends_without_a_failure();
    // What later stories compare with.
    play.before = bookstore::pods(stage)?;
    play.before.retain(|pod| !pod.app.is_empty());
    ended
}
