//! The stories in front of a person: what is done, the commands themselves, and what was seen.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cluster::Cluster;

use crate::bookstore::{self, Door, NAMESPACE};
use crate::held::Held;
use crate::stage::{SYSTEM, Stage};
use crate::{Control, Narrator, aftermath, story};

/// What the demo is to run on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control plane to install.
    pub control: Control,
    /// The folder of image archives (`ztunnel.tar`, `waypoint.tar`, `control.tar`, `bookinfo.tar`).
    pub images: PathBuf,
    /// A cluster that the user already has; without it two nodes are made.
    pub kubeconfig: Option<PathBuf>,
    /// Prefix of the images' names; the archives are named with it.
    pub registry: String,
    /// Name of the cluster that is made.
    pub name: String,
    /// Further words for helm's `--set`.
    pub values: Vec<String>,
}

/// Walks S1 to S6, S10, S15 and S17 and leaves the cluster up.
///
/// # Errors
/// When a step fails or something else is seen than what should be; the cluster stays for a look.
pub fn demo(options: &Options) -> Result<()> {
    let narrator = Narrator::aloud();
    let stage = set_up(options, narrator)?;
    let outcome = walk(&stage, options);
    if outcome.is_err() {
        narrator.chapter("Something went wrong; the cluster is left as it is");
        aftermath::tell(&|| stage.kubectl_command(), stage.control());
        how_to_use(&stage, None);
    }
    outcome
}

fn set_up(options: &Options, narrator: Narrator) -> Result<Stage> {
    if let Some(kubeconfig) = &options.kubeconfig {
        narrator.chapter("On your own cluster");
        let stage = Stage::given(kubeconfig, options.control, &options.registry, narrator);
        stage.kubectl(&["get", "nodes"])?;
        return Ok(stage);
    }
    narrator.chapter("A real Kubernetes with two nodes, from plain processes");
    if Cluster::list()?.contains(&options.name) {
        bail!(
            "there is a cluster called {0} already: remove it with `cargo xtask cluster down --name {0}`, \
             or choose another --name",
            options.name
        );
    }
    let stage = Stage::make(
        &options.name,
        options.control,
        &options.images,
        &options.registry,
        narrator,
    )?;
    stage.kubectl(&["get", "nodes", "-o", "wide"])?;
    Ok(stage)
}

fn walk(stage: &Stage, options: &Options) -> Result<()> {
    let narrator = stage.narrator();
    narrator.chapter("Culvert, with its chart");
    stage.install(&options.values)?;
    stage.kubectl(&["-n", SYSTEM, "get", "pods", "-o", "wide"])?;

    narrator.chapter("The bookstore, outside the mesh");
    narrator
        .say("  productpage and sleep on one node; details, ratings and notsleep on the other.");
    bookstore::deploy(stage)?;
    let door = Door::open(stage)?;

    narrator.chapter("S1  Outside the mesh: everyone is served, in plain text");
    story::s1(stage, &door)?;
    narrator.say("  One connection stays open from here on, and each line on it is checked:");
    let mut held = Held::open(stage, "sleep", "echo-right:9000", "opened-before-the-label")?;
    held.goes_on(5)?;
    let before = bookstore::pods(stage)?;

    narrator.chapter("S2  One label, and it is a mesh");
    story::s2(stage, &door, &before)?;
    held.goes_on(5)?;
    narrator.evidence(&format!(
        "the connection opened before the label is still open: {} lines and every checksum right",
        held.lines()
    ));
    story::same_node(stage)?;

    narrator.chapter("S3  Who may call is said by identity");
    story::s3(stage, &door)?;
    let closing = held.finish()?;
    narrator.evidence(&format!(
        "the connection from before the label, closed by us now: {closing}"
    ));

    waypoints(stage)?;

    narrator.chapter("It is yours");
    how_to_use(stage, Some(&door));
    Ok(())
}

/// The stories of waypoints; the namespace's stays, with no rule and no policy.
fn waypoints(stage: &Stage) -> Result<()> {
    let narrator = stage.narrator();
    narrator.chapter("S4  A waypoint for a service account, as in Istio 1.18, and S5 in that form");
    // The policy of S3 lets in nobody but sleep and the gateway, and would keep a waypoint out.
    stage.kubectl(&["delete", "authorizationpolicy", "--all", "-n", NAMESPACE])?;
    match stage.control() {
        Control::Culvert => story::waypoint::s4_account(stage)?,
        Control::Istiod => narrator.left_out("istiod has given this form up"),
    }
    narrator.chapter("S4  A waypoint for a service, and one for a workload");
    story::waypoint::s4_service_and_workload(stage)?;
    narrator.chapter("S4  A waypoint for the namespace");
    story::waypoint::s4_namespace(stage)?;
    narrator.chapter("S5  Who may do what is said by identity and method");
    story::policy::s5(stage)?;
    narrator.chapter("S6  Ninety and ten of a thousand");
    story::routing::s6(stage)?;
    narrator.chapter("S10  Jason sees another version");
    story::routing::s10(stage)?;
    narrator.chapter("S15  Rules change while ten thousand requests go on");
    story::routing::s15(stage)?;
    narrator.chapter("S17  All in their first version");
    story::routing::s17(stage)
}

fn how_to_use(stage: &Stage, door: Option<&Door>) {
    let narrator = stage.narrator();
    narrator.say(&format!(
        "  export KUBECONFIG={}",
        stage.kubeconfig().display()
    ));
    if stage.made().is_some() {
        narrator.say("  (or, where kubectl is not installed: cargo xtask kubectl get pods)");
    }
    match door {
        Some(Door::Local(address)) => {
            narrator.say(&format!("  The product page: http://{address}/productpage"));
        }
        Some(Door::ThroughTheApi) => narrator.say(
            "  The product page: kubectl port-forward service/gateway 8080:80, then \
             http://localhost:8080/productpage",
        ),
        None => {}
    }
    narrator
        .say("  Leave the mesh again: kubectl label namespace default istio.io/dataplane-mode-");
    match stage.made() {
        Some(cluster) => narrator.say(&format!(
            "  Remove everything: cargo xtask cluster down --name {}",
            cluster.name()
        )),
        None => narrator.say(&format!(
            "  Remove Culvert: helm uninstall culvert -n {SYSTEM}; \
             the bookstore: kubectl delete -f tests/bookinfo/manifests"
        )),
    }
}
