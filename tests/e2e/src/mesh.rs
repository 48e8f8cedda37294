//! The mesh as an operator sees it: namespaces taken in and let go, ztunnel's metrics and log, the
//! control plane stopped and started.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Control;
use crate::bookstore::{self, NAMESPACE, PAGE, Verdict};
use crate::stage::{SYSTEM, Stage};
use crate::until::until;
use crate::waypoint;

/// How long a change may take to be in force on every node.
pub const IN_FORCE: Duration = Duration::from_secs(30);
/// How many pages are asked for in one look: enough that each version of reviews is met.
const PAGES: usize = 6;

/// Takes the application's namespace into the mesh with the label, and waits until each pod is
/// captured and calls between them are under mutual TLS.
///
/// # Errors
/// When it does not come to that.
pub fn enrol(stage: &Stage) -> Result<()> {
    stage.kubectl(&[
        "label",
        "namespace",
        NAMESPACE,
        "istio.io/dataplane-mode=ambient",
    ])?;
    bookstore::wait_captured(stage, true)?;
    until("calls under mutual TLS", Duration::from_secs(60), || {
        let before = Connections::now(stage)?;
        for _ in 0..PAGES {
            let verdict = bookstore::ask_quietly(stage, "sleep", PAGE, &[])?;
            ensure!(verdict == Verdict::Title, "{verdict}");
        }
        let after = Connections::now(stage)?;
        let plain = after.since(&before).of("policy", "unknown");
        ensure!(plain.0.is_empty(), "plain text still: {}", plain.told());
        Ok(())
    })
}

/// Lets the application's namespace go again, and waits until no pod is captured.
///
/// # Errors
/// When it does not come to that.
pub fn let_go(stage: &Stage) -> Result<()> {
    stage.kubectl(&["label", "namespace", NAMESPACE, "istio.io/dataplane-mode-"])?;
    bookstore::wait_captured(stage, false)
}

/// The name of the control plane's Deployment.
#[must_use]
pub fn control_plane(control: Control) -> &'static str {
    match control {
        Control::Culvert => "deployment/culvert-control",
        Control::Istiod => "deployment/istiod",
    }
}

/// Stops the control plane and waits until none of its pods runs.
///
/// # Errors
/// When it does not stop.
pub fn stop_control_plane(stage: &Stage) -> Result<()> {
    let deployment = control_plane(stage.control());
    stage.kubectl(&["-n", SYSTEM, "scale", deployment, "--replicas=0"])?;
    until(
        "the control plane's pods to end",
        Duration::from_secs(90),
        || {
            let left = control_pods(stage)?;
            ensure!(left.is_empty(), "{} left", left.len());
            Ok(())
        },
    )
}

/// The control plane's pods, by name. They are found by the selector of its Deployment: a label that
/// it does not have would find none.
///
/// # Errors
/// When kubectl fails, or there is no such Deployment.
pub fn control_pods(stage: &Stage) -> Result<Vec<String>> {
    let deployment = control_plane(stage.control());
    let found = stage.get(&["-n", SYSTEM, deployment])?;
    let labels = found["spec"]["selector"]["matchLabels"]
        .as_object()
        .with_context(|| format!("{deployment} selects nothing"))?
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)));
    let labels = labels.collect::<Vec<_>>().join(",");
    let pods = stage.get(&["pods", "-n", SYSTEM, "-l", &labels])?;
    let names = pods["items"].as_array().into_iter().flatten();
    Ok(names
        .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}

/// What the control plane's pods count: the sum of a metric over the series with all of these labels.
///
/// # Errors
/// When a pod's metrics can't be had.
pub fn control_counts(stage: &Stage, metric: &str, labels: &[(&str, &str)]) -> Result<u64> {
    let mut sum = 0.0;
    for pod in control_pods(stage)? {
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:15014/proxy/metrics");
        sum += waypoint::read(&stage.look(&["get", "--raw", &path])?, metric, labels);
    }
    Ok(sum as u64)
}

/// Starts the control plane and waits until it is available.
///
/// # Errors
/// When it does not come up.
pub fn start_control_plane(stage: &Stage) -> Result<()> {
    let deployment = control_plane(stage.control());
    stage.kubectl(&["-n", SYSTEM, "scale", deployment, "--replicas=1"])?;
    stage.kubectl(&[
        "-n",
        SYSTEM,
        "rollout",
        "status",
        deployment,
        "--timeout=120s",
    ])?;
    Ok(())
}

/// Waits until ztunnel is ready on every node.
///
/// # Errors
/// When it does not come to that.
pub fn ztunnels_ready(stage: &Stage) -> Result<()> {
    stage.look(&[
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "daemonset/ztunnel",
        "--timeout=120s",
    ])?;
    until("ztunnel on every node", Duration::from_secs(60), || {
        let set = stage.get(&["daemonset", "ztunnel", "-n", SYSTEM])?;
        let count = |name: &str| set["status"][name].as_u64().unwrap_or(0);
        let (wanted, ready) = (count("desiredNumberScheduled"), count("numberReady"));
        ensure!(
            wanted > 0 && ready == wanted,
            "{ready} of {wanted} are ready"
        );
        Ok(())
    })
}

/// The pod of ztunnel on a node, by name.
///
/// # Errors
/// When there is none.
pub fn ztunnel_on(stage: &Stage, node: &str) -> Result<String> {
    let at = format!("spec.nodeName={node}");
    let words = [
        "pods",
        "-n",
        SYSTEM,
        "-l",
        "app=ztunnel",
        "--field-selector",
        &at,
    ];
    let pods = stage.get(&words)?;
    let last = pods["items"].as_array().and_then(|pods| pods.last());
    let name = last.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned)
        .with_context(|| format!("no ztunnel on {node}"))
}

/// The newest line of any ztunnel's log that holds all of `words`.
///
/// # Errors
/// When there is none within a few seconds: a connection is logged when it ends.
pub fn logged(stage: &Stage, words: &[&str]) -> Result<String> {
    until(
        &format!("a line of ztunnel's log with {words:?}"),
        Duration::from_secs(15),
        || {
            let log = stage.look(&["-n", SYSTEM, "logs", "-l", "app=ztunnel", "--tail=2000"])?;
            log.lines()
                .rev()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned)
                .with_context(|| format!("none of {} lines", log.lines().count()))
        },
    )
}

/// How many connections were opened, by source, destination, reporter and security, as the metrics
/// of all ztunnels say.
#[derive(Clone, Debug, Default)]
pub struct Connections(pub BTreeMap<Labels, u64>);

/// The labels that a story looks at: `source`, `destination`, `reporter`, `policy`.
pub type Labels = BTreeMap<&'static str, String>;

/// Our word and the metric's label for each of them.
const LABELS: [(&str, &str); 4] = [
    ("source", "source_workload"),
    ("destination", "destination_workload"),
    ("reporter", "reporter"),
    ("policy", "connection_security_policy"),
];

impl Connections {
    /// As they are now.
    ///
    /// # Errors
    /// When a ztunnel's metrics can't be had.
    pub fn now(stage: &Stage) -> Result<Self> {
        let pods = stage.get(&["pods", "-n", SYSTEM, "-l", "app=ztunnel"])?;
        let mut all = Self::default();
        for pod in pods["items"]
            .as_array()
            .context("a list of pods without items")?
        {
            let name = pod["metadata"]["name"]
                .as_str()
                .context("a pod without a name")?;
            let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:15020/proxy/metrics");
            all.read(&stage.look(&["get", "--raw", &path])?);
        }
        Ok(all)
    }

    /// What was opened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = |(labels, count): (&Labels, &u64)| {
            // A ztunnel that was started anew counts from nothing.
            let more = count
                .checked_sub(before.0.get(labels).copied().unwrap_or(0))
                .unwrap_or(*count);
            (more > 0).then(|| (labels.clone(), more))
        };
        Self(self.0.iter().filter_map(more).collect())
    }

    /// Those whose `label` is `value`.
    #[must_use]
    pub fn of(&self, label: &'static str, value: &str) -> Self {
        let fits = |labels: &Labels| labels.get(label).is_some_and(|found| found == value);
        Self(
            self.0
                .iter()
                .filter(|(labels, _)| fits(labels))
                .map(|(l, n)| (l.clone(), *n))
                .collect(),
        )
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// In words.
    #[must_use]
    pub fn told(&self) -> String {
        let one = |(labels, count): (&Labels, &u64)| {
            let word = |name| labels.get(name).map_or("?", String::as_str);
            format!(
                "{count} {}→{} ({})",
                word("source"),
                word("destination"),
                word("policy")
            )
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn read(&mut self, metrics: &str) {
        for line in metrics.lines() {
            let Some((labels, count)) = line
                .strip_prefix("istio_tcp_connections_opened_total{")
                .and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            let value = |label: &str| {
                labels.split("\",").find_map(|pair| {
                    let (name, value) = pair.split_once("=\"")?;
                    (name == label).then(|| value.trim_end_matches('"').to_owned())
                })
            };
            let key = LABELS
                .iter()
                .filter_map(|(word, label)| Some((*word, value(label)?)))
                .collect::<Labels>();
            // OpenMetrics writes counts as floating point numbers.
            let count = count
                .split(' ')
                .next()
                .and_then(|count| count.parse::<f64>().ok());
            *self.0.entry(key).or_default() += count.unwrap_or(0.0) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read_from_metrics_and_compared() {
        let line = |count| {
            format!(
                "istio_tcp_connections_opened_total{{reporter=\"destination\",source_workload=\"sleep\",\
                 destination_workload=\"productpage-v1\",connection_security_policy=\"mutual_tls\"}} {count}\n"
            )
        };
        let (mut before, mut after) = (Connections::default(), Connections::default());
        before.read(&line(2));
        after.read(&format!("# HELP x\n{}", line(5)));
        let more = after.since(&before);
        assert_eq!(more.of("policy", "mutual_tls").total(), 3);
        assert_eq!(more.of("source", "notsleep").total(), 0);
        assert_eq!(more.told(), "3 sleep→productpage-v1 (mutual_tls)");
        assert!(after.since(&after).0.is_empty());
    }
}
