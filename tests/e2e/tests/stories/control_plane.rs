//! Our own control plane run as in production: a root that is replaced while the stories go on, several
//! replicas of which the leading one is killed under load, and a webhook that refuses wrong objects.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bookstore::{self, NAMESPACE};
use e2e::mesh::{self, IN_FORCE};
use e2e::stage::{SYSTEM, Stage};
use e2e::story::routing;
use e2e::until::until;
use e2e::{Control, node};

use crate::cases::Play;
use crate::waypoint_faults::Both;

/// The lease of whoever writes.
const LEASE: &str = "culvert-control-leader";
/// How long another replica may take to write in the place of one that was killed: the lease's 15 s, and
/// the time that the one it asks next needs for what was left.
const FOLLOWED: Duration = Duration::from_secs(60);
/// How long workloads' certificates live in the stories, in seconds: so short that every story is told with
/// certificates that are renewed under way, and long enough that none expires while control is stopped.
const LIFE: u64 = 120;
/// A rotation takes two lives of a certificate; and the ConfigMap is written after the Secret.
const ROTATED: Duration = Duration::from_secs(2 * LIFE + 60);

/// What the chart is installed with: under our own control plane, certificates that live briefly.
pub(crate) fn values(control: Control) -> Vec<String> {
    match control {
        Control::Culvert => ["defaultSeconds", "longestSeconds"]
            .map(|name| format!("control.certificates.{name}={LIFE}"))
            .to_vec(),
        Control::Istiod => Vec::new(),
    }
}

/// Asks for a new root. All stories from here to [`rotated`] are told while it takes the old one's place.
pub(crate) fn rotate(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let old = trusted(stage)?;
    ensure!(old.len() == 1, "{} roots before a rotation", old.len());
    stage.kubectl(&[
        "-n",
        SYSTEM,
        "annotate",
        "secret",
        "culvert-ca",
        "culvert.dev/rotate-root=now",
    ])?;
    until("both roots in every namespace", IN_FORCE, || {
        let now = trusted(stage)?;
        ensure!(
            now.len() == 2 && now.contains(&old[0]),
            "{} roots",
            now.len()
        );
        Ok(())
    })?;
    play.root = old.into_iter().next();
    Ok(())
}

/// The old root is trusted no longer, and calls between pods go on under the new one.
pub(crate) fn rotated(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let old = play.root.take().context("no rotation was begun")?;
    until("the old root to go", ROTATED, || {
        let now = trusted(stage)?;
        ensure!(now.len() == 1 && now[0] != old, "{} roots", now.len());
        Ok(())
    })?;
    let outcomes = routing::reviews(stage, 200, None)?;
    ensure!(
        outcomes.of_kind("200 ") == 200,
        "under the new root: {outcomes}"
    );
    bookstore::nothing_restarted(&play.before, &bookstore::pods(stage)?)
}

/// The roots that workloads of the namespace are told to trust.
fn trusted(stage: &Stage) -> Result<Vec<String>> {
    let map = stage.get(&["configmap", "istio-ca-root-cert", "-n", NAMESPACE])?;
    let text = map["data"]["root-cert.pem"]
        .as_str()
        .context("no root-cert.pem")?;
    let ends = "-----END CERTIFICATE-----";
    let one = |root: &str| root.trim().to_owned();
    Ok(text
        .split_terminator(ends)
        .map(one)
        .filter(|root| !root.is_empty())
        .collect())
}

/// Two replicas; the one that leads is killed under load. No call fails, what is changed right after comes
/// into force, and a wrong rule is told of by whoever writes next.
pub(crate) fn leader_killed(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    stage.upgrade(&["control.replicas=2".to_owned()])?;
    let leader = until("a leader", FOLLOWED, || {
        let (holder, pods) = (holder(stage)?, mesh::control_pods(stage)?);
        ensure!(pods.len() == 2, "{} replicas", pods.len());
        let leads = pods.into_iter().find(|pod| holder.starts_with(pod));
        leads.with_context(|| format!("{holder} is none of the replicas"))
    })?;
    let before = holder(stage)?;
    let both = Both::start(stage)?;
    node::kill(stage, SYSTEM, &leader)?;
    routing::rules(stage, &["reviews-subsets", "reviews-jason"], "v3")
        .context("a rule right after the kill")?;
    routing::wrong_rule(stage).context("a wrong rule right after the kill")?;
    let now = until("somebody else to lead", FOLLOWED, || {
        let now = holder(stage)?;
        ensure!(now != before, "{now} still leads");
        Ok(now)
    })?;
    stage
        .narrator()
        .evidence(&format!("{before} led, then {now}"));
    both.ends_without_a_failure()
}

/// Who leads, by the lease.
fn holder(stage: &Stage) -> Result<String> {
    let lease = stage.get(&["lease", LEASE, "-n", SYSTEM])?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    holder
        .filter(|holder| !holder.is_empty())
        .map(str::to_owned)
        .context("nobody leads")
}

/// With the webhook a wrong rule is refused when it is applied, in the words that its status would have.
pub(crate) fn webhook(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    stage.upgrade(&["control.webhook.enabled=true".to_owned()])?;
    until("the webhook to have its authority", IN_FORCE, || {
        let name = format!("culvert-control-{SYSTEM}");
        let configured = stage.get(&["validatingwebhookconfiguration", &name])?;
        let bundle = configured["webhooks"][0]["clientConfig"]["caBundle"].as_str();
        ensure!(bundle.is_some_and(|text| !text.is_empty()), "no caBundle");
        Ok(())
    })?;
    const WRONG: &str = r#"{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"wrong"},"spec":{"rules":[{"from":[{"source":{"ipBlocks":["nonsense"]}}]}]}}"#;
    let said = until("the refusal of a wrong policy", IN_FORCE, || {
        match stage.apply_text(WRONG) {
            Err(refused) => Ok(format!("{refused:#}")),
            Ok(()) => {
                stage.kubectl(&["delete", "authorizationpolicy", "wrong"])?;
                anyhow::bail!("it was applied")
            }
        }
    })?;
    for word in ["AuthorizationPolicy default/wrong", "rules[0]", "nonsense"] {
        ensure!(said.contains(word), "{word} is not in {said}");
    }
    stage.narrator().evidence(&said);
    // What is right is let through.
    routing::rules(stage, &["reviews-subsets", "reviews-90-10"], "v3")?;
    routing::no_rules(stage)
}
