//! The sample application on a stage: put there, asked from its pods and from outside, and its pods
//! looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http;
use crate::stage::Stage;
use crate::until::until;

/// The namespace of the sample application.
pub const NAMESPACE: &str = "default";
/// The title that every good answer of the product page has.
pub const TITLE: &str = "<title>Simple Bookstore App</title>";
/// The product page, as its callers inside the cluster name it.
pub const FRONT: &str = "http://productpage:9080/";
/// The page that asks all the services behind.
pub const PAGE: &str = "http://productpage:9080/productpage";

/// The port of this machine that the gateway is forwarded to, unless it is in use.
const LOCAL_PORT: u16 = 9080;

/// The annotation by which the node agent says that it has captured a pod.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// What came of a request, in the words of the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The page with its title.
    Title,
    /// Refused after the connection stood: curl's 56.
    Reset,
    /// No connection: curl's 7.
    Refused,
    /// No answer in time: curl's 28.
    TimedOut,
    /// Anything else, as it was told.
    Other(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Title => f.write_str(TITLE),
            Self::Reset => f.write_str("connection reset (curl exit 56)"),
            Self::Refused => f.write_str("connection refused (curl exit 7)"),
            Self::TimedOut => f.write_str("timed out (curl exit 28)"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// One of the application's pods as Kubernetes has it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its `app` label.
    pub app: String,
    /// Its identifier: another pod has another, even under the same name.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// All its addresses.
    pub ips: Vec<IpAddr>,
    /// How often its containers were started again.
    pub restarts: u64,
    /// Whether Kubernetes holds it ready.
    pub ready: bool,
    /// Whether the node agent says that it is captured.
    pub captured: bool,
}

/// Puts the application, its clients, the gateway and the echoes on the stage.
///
/// # Errors
/// When something of it does not become available.
pub fn deploy(stage: &Stage) -> Result<()> {
    for manifest in ["bookinfo", "clients", "gateway", "echo"] {
        stage.apply(manifest)?;
    }
    stage.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment",
        "--all",
        "--timeout=180s",
    ])?;
    Ok(())
}

/// The application's pods that are to stay, by name.
///
/// # Errors
/// When kubectl fails or says something unexpected.
pub fn pods(stage: &Stage) -> Result<Vec<Pod>> {
    let list = stage.get(&["pods", "--namespace", NAMESPACE])?;
    let items = list["items"]
        .as_array()
        .context("a list of pods without items")?;
    items
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(pod)
        .collect::<Result<_>>()
}

fn pod(object: &Value) -> Result<Pod> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = word(&object["metadata"]["name"]);
    let status = &object["status"];
    let none = Vec::new();
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let ips = list(&status["podIPs"])
        .iter()
        .filter_map(|ip| ip["ip"].as_str())
        .map(|ip| {
            ip.parse()
                .with_context(|| format!("pod {name} has address {ip:?}"))
        })
        .collect::<Result<_>>()?;
    let containers = status["containerStatuses"].as_array().unwrap_or(&none);
    let conditions = list(&status["conditions"]);
    Ok(Pod {
        app: word(&object["metadata"]["labels"]["app"]),
        uid: word(&object["metadata"]["uid"]),
        node: word(&object["spec"]["nodeName"]),
        ips,
        restarts: containers
            .iter()
            .filter_map(|one| one["restartCount"].as_u64())
            .sum(),
        ready: conditions
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True"),
        captured: object["metadata"]["annotations"][REDIRECTION] == "enabled",
        name,
    })
}

/// Asks for `url` from a pod of deployment `from` with curl, and tells the command and the answer.
///
/// # Errors
/// When kubectl itself fails.
pub fn ask(stage: &Stage, from: &str, url: &str) -> Result<Verdict> {
    stage.narrator().command(&format!(
        "kubectl exec deploy/{from} -- curl -sS {url} | grep -o '<title>.*</title>'"
    ));
    let verdict = ask_quietly(stage, from, url, &[])?;
    stage.narrator().output(&verdict.to_string());
    Ok(verdict)
}

/// As [`ask`], with further words for curl and without telling it.
///
/// # Errors
/// When kubectl itself fails.
pub fn ask_quietly(stage: &Stage, from: &str, url: &str, more: &[&str]) -> Result<Verdict> {
    let deployment = format!("deploy/{from}");
    let mut words = vec!["exec", &deployment, "--", "curl", "-sS", "-m", "10"];
    words.extend_from_slice(more);
    words.push(url);
    let ended = stage.try_kubectl(&words)?;
    Ok(match ended.code {
        Some(0) if ended.stdout.contains(TITLE) => Verdict::Title,
        Some(56) => Verdict::Reset,
        Some(7) => Verdict::Refused,
        Some(28) => Verdict::TimedOut,
        Some(1) if ended.stderr.starts_with("error:") || ended.stderr.starts_with("Error from") => {
            bail!("kubectl exec in {from}: {}", ended.stderr.trim())
        }
        code => Verdict::Other(format!(
            "exit {code:?}: {} {}",
            ended.stdout.chars().take(200).collect::<String>(),
            ended.stderr.trim()
        )),
    })
}

/// Sends a request from a pod of deployment `from` with curl; `words` are the URL and what else curl
/// is told. Gives the status and the body, and tells both.
///
/// # Errors
/// When there is no answer of HTTP.
pub fn answer(stage: &Stage, from: &str, words: &[&str]) -> Result<(u16, String)> {
    stage.narrator().command(&curl(from, words));
    let (status, body) = answer_quietly(stage, from, words)?;
    let shown: String = body.chars().take(200).collect();
    stage.narrator().output(&format!("{status} {shown}"));
    Ok((status, body))
}

/// The same, and tells nothing.
///
/// # Errors
/// When there is no answer of HTTP.
pub fn answer_quietly(stage: &Stage, from: &str, words: &[&str]) -> Result<(u16, String)> {
    let deployment = format!("deploy/{from}");
    let mut all = vec!["exec", &deployment, "--", "curl", "-sS", "-m", "10"];
    all.extend_from_slice(words);
    all.extend_from_slice(&["-w", "\\n%{http_code}"]);
    let line = curl(from, words);
    let said = stage.try_kubectl(&all)?.well(&line)?;
    let (body, status) = said
        .trim_end()
        .rsplit_once('\n')
        .with_context(|| format!("{line} said {said:?}, without a status"))?;
    let status = status
        .parse()
        .with_context(|| format!("{line} said {said:?}"))?;
    Ok((status, body.trim_end().to_owned()))
}

fn curl(from: &str, words: &[&str]) -> String {
    format!("kubectl exec deploy/{from} -- curl -s {}", words.join(" "))
}

/// Asks the gateway from outside the cluster for the product page, and tells it.
///
/// # Errors
/// When there is no answer of HTTP.
pub fn ask_gateway(stage: &Stage, door: &Door) -> Result<Verdict> {
    let (shown, status, body) = match door {
        Door::Local(address) => {
            let (status, body) = http::get(*address, "/productpage", &[])?;
            (
                format!("curl -s http://{address}/productpage"),
                status,
                body,
            )
        }
        Door::ThroughTheApi => {
            let path =
                format!("/api/v1/namespaces/{NAMESPACE}/services/gateway:80/proxy/productpage");
            let words = ["get", "--raw", &path];
            let ended = stage.try_kubectl(&words)?;
            let status = if ended.code == Some(0) { 200 } else { 502 };
            (
                format!("kubectl get --raw {path}"),
                status,
                ended.stdout + &ended.stderr,
            )
        }
    };
    stage
        .narrator()
        .command(&format!("{shown} | grep -o '<title>.*</title>'"));
    let verdict = if status == 200 && body.contains(TITLE) {
        Verdict::Title
    } else {
        Verdict::Other(format!(
            "status {status}: {}",
            body.chars().take(200).collect::<String>()
        ))
    };
    stage.narrator().output(&verdict.to_string());
    Ok(verdict)
}

/// How one comes to the gateway from outside the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    /// An address of this machine, forwarded to the gateway's port on a node.
    Local(SocketAddr),
    /// Through the API server, where nothing else is known to reach the cluster.
    ThroughTheApi,
}

impl Door {
    /// Opens the way. On a cluster of our own it stays open as long as the cluster is up.
    ///
    /// # Errors
    /// When the gateway has no port on the nodes.
    pub fn open(stage: &Stage) -> Result<Self> {
        let Some(cluster) = stage.made() else {
            return Ok(Self::ThroughTheApi);
        };
        let service = stage.get(&["service", "gateway", "--namespace", NAMESPACE])?;
        let port = service["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .context("service gateway has no port on the nodes")?;
        let node = cluster.nodes().first().context("a cluster without nodes")?;
        let ip = *node
            .ips
            .first()
            .with_context(|| format!("{} has no address", node.name))?;
        let to = (ip, port).into();
        let local = cluster
            .forward(([127, 0, 0, 1], LOCAL_PORT).into(), to)
            .or_else(|_| cluster.forward(([127, 0, 0, 1], 0).into(), to))?;
        Ok(Self::Local(local))
    }
}

/// That the two sides of the application run on two nodes, so that its calls cross between them.
///
/// # Errors
/// When they do not.
pub fn crosses_between_nodes(pods: &[Pod]) -> Result<()> {
    let node = |app: &str| {
        pods.iter()
            .find(|pod| pod.app == app)
            .map(|pod| pod.node.as_str())
            .with_context(|| format!("there is no pod of {app}"))
    };
    ensure!(
        node("productpage")? != node("details")?,
        "productpage and details are on one node, {}: the stories need two nodes with room",
        node("details")?
    );
    Ok(())
}

/// That no pod was restarted, replaced or made unready since `before`.
///
/// # Errors
/// Names the pod that was.
pub fn nothing_restarted(before: &[Pod], now: &[Pod]) -> Result<()> {
    let now: BTreeMap<&str, &Pod> = now.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    for pod in before {
        let still = now
            .get(pod.uid.as_str())
            .with_context(|| format!("pod {} is gone", pod.name))?;
        ensure!(
            still.restarts == pod.restarts,
            "pod {} was restarted: {} times before, {} now",
            pod.name,
            pod.restarts,
            still.restarts
        );
        ensure!(still.ready, "pod {} is not ready any more", pod.name);
    }
    Ok(())
}

/// Waits until every pod of the application is captured, or none.
///
/// # Errors
/// Names the pods that are not so when the time is over.
pub fn wait_captured(stage: &Stage, captured: bool) -> Result<()> {
    until("the pods' annotation", Duration::from_secs(60), || {
        let odd: Vec<String> = pods(stage)?
            .into_iter()
            .filter(|pod| pod.captured != captured)
            .map(|pod| pod.name)
            .collect();
        let word = if captured {
            "not captured"
        } else {
            "still captured"
        };
        ensure!(odd.is_empty(), "{word}: {}", odd.join(", "));
        Ok(())
    })
}
