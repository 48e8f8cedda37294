//! Asks the real istiod about every set of the corpus, and writes down what it tells a waypoint.
//!
//! ```text
//! cargo run -p control --example l7-record [THEME...]
//! ```
//!
//! An API server of its own without nodes, all sets' objects in it, each in a namespace of its own with
//! addresses of its own, and only then istiod: once it is ready it knows them all. In what is written
//! to `control/tests/corpus/istiod` names and addresses are those of the corpus again. Sets that would
//! concern the others have a server and an istiod to themselves; those with the same mesh configuration have one together.

mod ask;
mod make;
mod own;

#[path = "../../tests/corpus/form.rs"]
mod form;
#[path = "../../tests/corpus/recorded.rs"]
mod recorded;
#[path = "../../tests/corpus/sets.rs"]
mod sets;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cluster::Tools;
use futures_util::{StreamExt, TryStreamExt};
use plane::bench::subject::{Plane, Running, istiod};
use plane::install;
use plane::server::ApiServer;
use waypoint::source::json::Descriptors;

use ask::Ask;
use form::Resources;
use own::Own;
use recorded::Recorded;
use sets::Set;

/// Objects that are made, and waypoints that are asked for, at a time.
const AT_ONCE: usize = 8;
/// How long istiod may take until it is ready, and until it tells all waypoints the same twice.
const PATIENCE: Duration = Duration::from_secs(300);
/// What is not istiod's part here is off: the deployments of Gateways and the statuses of all, which
/// the sets bring along. What an installation may turn on, and control has always, is on.
const SETTINGS: [(&str, &str); 5] = [
    ("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", "false"),
    ("PILOT_ENABLE_GATEWAY_API_STATUS", "false"),
    ("PILOT_ENABLE_ALPHA_GATEWAY_API", "true"),
    ("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", "true"),
    ("PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", "true"),
];

/// Records what istiod tells of the corpus.
#[derive(Parser)]
struct Options {
    /// The themes to record; none: all.
    themes: Vec<String>,
}

/// A set, with the names and addresses that it has in the API server.
struct Placed {
    theme: String,
    own: Own,
    set: Set,
}

impl Placed {
    /// The waypoint's node, if its pod is on one.
    fn node(&self) -> Result<String> {
        let objects = self.set.objects();
        let mut pods = objects.iter().filter(|object| object["kind"] == "Pod");
        let pod = pods.find(|pod| pod["metadata"]["name"] == "waypoint-1");
        let node = pod
            .map(|pod| self.own.put(&pod["spec"]["nodeName"]))
            .transpose()?;
        let node = node.as_ref().and_then(serde_json::Value::as_str);
        Ok(node.unwrap_or_default().to_owned())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // Made anew where nobody has them, which takes longer than a question.
    let _held = Descriptors::get();
    let mut themes = Options::parse().themes;
    if themes.is_empty() {
        themes = sets::THEMES.map(str::to_owned).to_vec();
    }
    let mut placed = Vec::new();
    for theme in &themes {
        for set in sets::sets(theme) {
            let own = Own(placed.len() + 1);
            let theme = theme.clone();
            placed.push(Placed { theme, own, set });
        }
    }
    let (alone, together): (Vec<_>, Vec<_>) = placed.into_iter().partition(|one| one.set.alone);
    let mut by_mesh: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
    for one in together {
        by_mesh.entry(one.set.mesh()).or_default().push(one);
    }
    let batches = by_mesh
        .into_values()
        .chain(alone.into_iter().map(|one| vec![one]));
    let mut recorded: BTreeMap<String, Recorded> = BTreeMap::new();
    for batch in batches {
        let answers = record(&batch).await?;
        for (one, answer) in batch.iter().zip(answers) {
            let of_theme = recorded.entry(one.theme.clone()).or_default();
            of_theme.add(&one.set.name, answer);
        }
    }
    for (theme, recorded) in recorded {
        let path = recorded::path(&theme);
        std::fs::write(&path, recorded.text()).with_context(|| path.display().to_string())?;
        eprintln!("{} written", path.display());
    }
    Ok(())
}

/// istiod's answers to these sets, which are in one API server.
async fn record(batch: &[Placed]) -> Result<Vec<Resources>> {
    let server = ApiServer::start().await?;
    let client = server.client().await?;
    definitions(&client).await?;
    make::common(&client).await?;
    make::shared(&client, &batch[0].set).await?;
    let tokens: Vec<Result<String>> = futures_util::stream::iter(batch)
        .map(|one| make::set(&client, one.own, &one.set))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let refused: Vec<String> = tokens
        .iter()
        .filter_map(|made| made.as_ref().err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(refused.is_empty(), "not made:\n{}", refused.join("\n"));
    let tokens: Vec<String> = tokens.into_iter().flatten().collect();
    eprintln!("{} sets are made", batch.len());
    let mut running = istiod(&server, &SETTINGS, &batch[0].set.mesh())?;
    running.ready(PATIENCE).await?;
    let root = Plane::Istiod.root(&client).await?;
    let answers = settled(&running, &root, batch, &tokens).await;
    let answers = answers.with_context(|| running.said())?;
    running.stop().await?;
    Ok(answers)
}

/// The Gateway API's and Istio's own resource definitions, which know every field.
async fn definitions(client: &kube::Client) -> Result<()> {
    let tools = Tools::from_env();
    let gateway_api = tools.module_folder("istio", "sigs.k8s.io/gateway-api")?;
    for entry in std::fs::read_dir(gateway_api.join("config/crd/experimental"))? {
        install::definitions_of(client, &entry?.path()).await?;
    }
    let istio = tools.module_folder("istio", "istio.io/istio")?;
    let all = istio.join("manifests/charts/base/files/crd-all.gen.yaml");
    install::definitions_of(client, &all).await
}

/// What istiod tells each set's waypoint, once all of it is the same twice.
async fn settled(
    running: &Running,
    root: &str,
    batch: &[Placed],
    tokens: &[String],
) -> Result<Vec<Resources>> {
    let begun = Instant::now();
    let mut before = None;
    loop {
        let round: Vec<Resources> = futures_util::stream::iter(batch.iter().zip(tokens))
            .map(async |(one, token)| {
                let ask = Ask {
                    istiod: running.grpc,
                    root,
                    token,
                    node: one.node()?,
                    own: one.own,
                };
                let answer = ask.answer(PATIENCE).await;
                answer.with_context(|| format!("{} {}", one.theme, one.set.name))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        if before.as_ref() == Some(&round) {
            return Ok(round);
        }
        before = Some(round);
        let late = begun.elapsed() > PATIENCE;
        ensure!(!late, "istiod does not tell the same twice");
    }
}
