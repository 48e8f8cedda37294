//! Waypoints as an operator sees them: made and removed with istioctl, scaled, restarted, looked at
//! through their own metrics. The same words under both control planes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bookstore::NAMESPACE;
use crate::mesh::{Connections, IN_FORCE};
use crate::stage::Stage;
use crate::until::until;

/// How long a waypoint may take from its Gateway to its first ready pod.
const MADE: Duration = Duration::from_secs(120);
/// The label that Gateways' pods carry.
const OF_GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

/// A waypoint's pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// The image of its container.
    pub image: String,
    /// How often its container was started again.
    pub restarts: u64,
}

/// Makes a waypoint with `istioctl waypoint apply` and further words, and waits until it is ready
/// and the control plane says so.
///
/// # Errors
/// When it does not come to that.
pub fn apply(stage: &Stage, name: &str, more: &[&str]) -> Result<()> {
    let mut words = vec![
        "waypoint",
        "apply",
        "--name",
        name,
        "--namespace",
        NAMESPACE,
    ];
    words.extend_from_slice(more);
    stage.istioctl(&words)?;
    programmed(stage, name)
}

/// Waits until a waypoint is ready and its Gateway's status says so.
///
/// # Errors
/// When it does not come to that.
pub fn programmed(stage: &Stage, name: &str) -> Result<()> {
    until("the Gateway's status", MADE, || {
        let gateway = stage.get(&["gateways.gateway.networking.k8s.io", name, "-n", NAMESPACE])?;
        let conditions = gateway["status"]["conditions"].as_array();
        let programmed = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Programmed" && condition["status"] == "True");
        ensure!(programmed, "not programmed: {}", gateway["status"]);
        Ok(())
    })?;
    until("a ready pod", MADE, || {
        let ready = deployment(stage, name)?["status"]["readyReplicas"].as_u64();
        ensure!(
            ready.is_some_and(|ready| ready > 0),
            "none of {name} is ready"
        );
        Ok(())
    })
}

/// The Deployment that was made of a Gateway, by its label: in Istio 1.18's form it has another name.
fn deployment(stage: &Stage, name: &str) -> Result<serde_json::Value> {
    let label = format!("{OF_GATEWAY}={name}");
    let mut list = stage.get(&["deployments", "-n", NAMESPACE, "-l", &label])?;
    let found = list["items"].as_array_mut().and_then(Vec::pop);
    found.with_context(|| format!("no Deployment of Gateway {name}"))
}

/// Removes a waypoint with `istioctl waypoint delete`, and waits until its pods are gone.
///
/// # Errors
/// When it does not come to that.
pub fn delete(stage: &Stage, name: &str) -> Result<()> {
    stage.istioctl(&["waypoint", "delete", name, "--namespace", NAMESPACE])?;
    until("the waypoint's pods to end", MADE, || {
        let left = pods(stage, name)?;
        ensure!(left.is_empty(), "{} left", left.len());
        Ok(())
    })
}

/// Waits until exactly so many pods of a waypoint are there, all of them ready.
///
/// # Errors
/// When it does not come to that.
pub fn ready(stage: &Stage, name: &str, count: usize) -> Result<()> {
    until(&format!("{count} ready pods of {name}"), MADE, || {
        let deployment = deployment(stage, name)?;
        let status = |field: &str| deployment["status"][field].as_u64().unwrap_or(0);
        let (ready, updated) = (status("readyReplicas"), status("updatedReplicas"));
        let now = (ready, updated, pods(stage, name)?.len());
        let wanted = count as u64;
        ensure!(
            now == (wanted, wanted, count),
            "ready, updated, there: {now:?}"
        );
        Ok(())
    })
}

/// Sets how many pods a waypoint has, and waits for them.
///
/// # Errors
/// When it does not come to that.
pub fn scale(stage: &Stage, name: &str, count: usize) -> Result<()> {
    let deployment = format!("deployment/{name}");
    let replicas = format!("--replicas={count}");
    stage.kubectl(&["-n", NAMESPACE, "scale", &deployment, &replicas])?;
    ready(stage, name, count)
}

/// The pods of a waypoint, those that are ending as well.
///
/// # Errors
/// When kubectl fails.
pub fn pods(stage: &Stage, name: &str) -> Result<Vec<Pod>> {
    let label = format!("{OF_GATEWAY}={name}");
    let list = stage.get(&["pods", "-n", NAMESPACE, "-l", &label])?;
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().context("a list without items")?;
    let pod = |pod: &serde_json::Value| {
        let container = &pod["status"]["containerStatuses"][0];
        Pod {
            name: word(&pod["metadata"]["name"]),
            node: word(&pod["spec"]["nodeName"]),
            image: word(&pod["spec"]["containers"][0]["image"]),
            restarts: container["restartCount"].as_u64().unwrap_or(0),
        }
    };
    Ok(items.iter().map(pod).collect())
}

/// What a waypoint's pods count: the sum of a metric over the series with all of these labels.
///
/// # Errors
/// When a pod's metrics can't be had.
pub fn counted(stage: &Stage, name: &str, metric: &str, labels: &[(&str, &str)]) -> Result<u64> {
    let mut sum = 0.0;
    for pod in pods(stage, name)? {
        let pod = pod.name;
        let path =
            format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:15020/proxy/stats/prometheus");
        sum += read(&stage.look(&["get", "--raw", &path])?, metric, labels);
    }
    Ok(sum as u64)
}

/// The sum of a metric over the series that have all of these labels.
pub(crate) fn read(metrics: &str, metric: &str, labels: &[(&str, &str)]) -> f64 {
    let begins = format!("{metric}{{");
    let series = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(&begins)?.rsplit_once("} "));
    series
        .filter(|(found, _)| {
            labels
                .iter()
                .all(|(label, value)| found.contains(&format!("{label}=\"{value}\"")))
        })
        .filter_map(|(_, count)| count.split(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Waits until calls made by `call` pass the waypoint, by its Deployment's name, on their way to `to`:
/// its legs are in the metrics of the node proxies, and no direct connection is. Gives the legs in words.
///
/// # Errors
/// When it does not come to that.
pub fn is_passed(
    stage: &Stage,
    name: &str,
    to: &str,
    call: impl Fn() -> Result<()>,
) -> Result<String> {
    until(&format!("calls to {to} through {name}"), IN_FORCE, || {
        let before = Connections::now(stage)?;
        call()?;
        let opened = Connections::now(stage)?.since(&before);
        let to_waypoint = opened.of("destination", name).of("reporter", "source");
        let direct = opened.of("source", "sleep").of("destination", to);
        ensure!(
            to_waypoint.total() > 0 && direct.total() == 0,
            "opened: {}",
            opened.told()
        );
        ensure!(
            to_waypoint.of("policy", "mutual_tls").total() == to_waypoint.total(),
            "not all of it under mutual TLS: {}",
            opened.told()
        );
        let from_waypoint = opened.of("source", name).of("reporter", "destination");
        Ok(format!("{}, {}", to_waypoint.told(), from_waypoint.told()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_series_that_fit() {
        let metrics = "# TYPE x counter\nx{a=\"1\",b=\"2\"} 3\nx{a=\"1\",b=\"3\"} 4 1700\nx{a=\"2\"} 5\nxy{a=\"1\"} 6\n";
        assert_eq!(read(metrics, "x", &[("a", "1")]) as u64, 7);
        assert_eq!(read(metrics, "x", &[("a", "1"), ("b", "2")]) as u64, 3);
        assert_eq!(read(metrics, "x", &[]) as u64, 12);
    }
}
