//! The node agent: watches the pods of this node and the namespaces' labels, finds the network
//! namespace of each pod that belongs into the mesh, has it captured, and marks it. What to do is
//! decided in [`work`]; here it is only done.

mod enrolment;
mod netns;
mod work;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod as KubePod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;

use self::enrolment::{ENABLED, REDIRECTION, View, namespace_mode};
use self::netns::Runtime;
use self::work::{Job, Task, Work};
use super::{Event, Info, Pod, Sink, Uid};
use crate::error::line;

/// How long a call to the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Failures to capture one pod before people are told with a Kubernetes event: a pod that has just
/// been scheduled has no sandbox yet, which is no failure worth a word.
const FAILURES_TO_TELL: u32 = 8;

/// What the agent has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node whose pods it watches.
    pub node: String,
    /// This proxy's own pod, which is never captured.
    pub own: (String, String),
    /// Socket of the container runtime.
    pub runtime: PathBuf,
}

/// Why the agent can't work at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container runtime's socket is no address.
    #[error("CRI_SOCKET is no path of a Unix socket")]
    Runtime(#[from] tonic::transport::Error),
}

/// Watches and acts for as long as the process lives.
pub async fn run(config: Config, client: Client, sink: Sink) -> Result<(), Error> {
    let hands = Arc::new(Hands {
        runtime: Runtime::new(&config.runtime)?,
        recorder: Recorder::new(
            client.clone(),
            Reporter {
                controller: "culvert-ztunnel".to_owned(),
                instance: None,
            },
        ),
        client: client.clone(),
        sink: sink.clone(),
    });
    let of_this_node = watcher::Config::default().fields(&format!("spec.nodeName={}", config.node));
    let mut pods = std::pin::pin!(
        watcher(Api::<KubePod>::all(client.clone()), of_this_node).default_backoff()
    );
    let labels_only = Api::<PartialObjectMeta<Namespace>>::all(client);
    let mut namespaces =
        std::pin::pin!(watcher(labels_only, watcher::Config::default()).default_backoff());
    let mut agent = Agent {
        config,
        hands,
        work: Work::default(),
        jobs: JoinSet::new(),
        failures: HashMap::new(),
    };
    let (mut named_pods, mut named_namespaces) = (Vec::new(), HashMap::new());
    let mut told_listed = false;
    let _ = sink.report(Event::Listing).await;
    loop {
        let wake = agent.work.wake_at();
        tokio::select! {
            Some(event) = next(&mut pods, "pods") => agent.saw_pod(event, &mut named_pods),
            Some(event) = next(&mut namespaces, "namespaces") => agent.saw_namespace(event, &mut named_namespaces),
            Some(Ok((job, outcome))) = agent.jobs.join_next() => agent.finished(&job, outcome).await,
            () = until(wake) => {}
        }
        agent.start_jobs();
        if !told_listed && agent.work.listed() {
            told_listed = true;
            let _ = sink.report(Event::Listed).await;
        }
    }
}

/// The next event of a watch; none, after a word in the log, when the watch has to begin anew.
async fn next<K>(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<K>>> + Unpin),
    what: &'static str,
) -> Option<watcher::Event<K>> {
    loop {
        match events.next().await? {
            Ok(event) => return Some(event),
            Err(error) => {
                tracing::warn!(%error, "cannot watch {what} (has ztunnel's ServiceAccount the right to?)")
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

struct Agent {
    config: Config,
    hands: Arc<Hands>,
    work: Work,
    jobs: JoinSet<(Job, Result<(), String>)>,
    failures: HashMap<Uid, u32>,
}

impl Agent {
    fn saw_pod(&mut self, event: watcher::Event<KubePod>, named: &mut Vec<View>) {
        match event {
            watcher::Event::Init => named.clear(),
            watcher::Event::InitApply(pod) => named.extend(self.view(&pod)),
            watcher::Event::InitDone => self.work.pods_listed(std::mem::take(named)),
            watcher::Event::Apply(pod) => {
                if let Some(view) = self.view(&pod) {
                    self.work.pod(view);
                }
            }
            watcher::Event::Delete(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.work.pod_gone(&Uid::new(uid));
                }
            }
        }
    }

    fn saw_namespace(
        &mut self,
        event: watcher::Event<impl Resource>,
        named: &mut HashMap<String, String>,
    ) {
        let read = |meta: &ObjectMeta| {
            (
                meta.name.clone().unwrap_or_default(),
                namespace_mode(meta.labels.as_ref()),
            )
        };
        match event {
            watcher::Event::Init => named.clear(),
            watcher::Event::InitApply(namespace) => {
                let (name, mode) = read(namespace.meta());
                named.extend(mode.map(|mode| (name, mode)));
            }
            watcher::Event::InitDone => self.work.namespaces_listed(std::mem::take(named)),
            watcher::Event::Apply(namespace) => {
                let (name, mode) = read(namespace.meta());
                self.work.namespace(&name, mode);
            }
            watcher::Event::Delete(namespace) => {
                self.work.namespace(&read(namespace.meta()).0, None)
            }
        }
    }

    fn view(&self, pod: &KubePod) -> Option<View> {
        let view = View::of(pod)?;
        let own =
            (&view.info.namespace, &view.info.name) == (&self.config.own.0, &self.config.own.1);
        if own { None } else { Some(view) }
    }

    fn start_jobs(&mut self) {
        while let Some(job) = self.work.next(Instant::now()) {
            let hands = Arc::clone(&self.hands);
            self.jobs.spawn(async move {
                let outcome = hands.work(&job).await;
                (job, outcome)
            });
        }
    }

    async fn finished(&mut self, job: &Job, outcome: Result<(), String>) {
        self.work.finished(job, outcome.is_ok(), Instant::now());
        match outcome {
            Ok(()) => {
                self.failures.remove(&job.uid);
                tracing::info!(pod = %job.info, uid = %job.uid, task = ?job.task, "done");
            }
            Err(error) => {
                if job.task == Task::Capture {
                    // It stays named in the listing: an earlier ztunnel may have captured it.
                    let _ = self.hands.sink.report(Event::Kept(job.uid.clone())).await;
                }
                let failures = self.failures.entry(job.uid.clone()).or_default();
                *failures += 1;
                if *failures == FAILURES_TO_TELL {
                    self.hands.tell(job, error).await;
                } else {
                    tracing::debug!(pod = %job.info, uid = %job.uid, task = ?job.task, error, "will be tried again");
                }
            }
        }
    }
}

/// Takes the mark from every pod of a node, as far as there still is a right to: for the removal of
/// ztunnel, after which nobody on the node understands HBONE.
pub async fn unmark_all(client: &Client, node: &str) {
    let unmark = async {
        let of_this_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        for pod in Api::<KubePod>::all(client.clone())
            .list(&of_this_node)
            .await?
        {
            if let Some(view) = View::of(&pod).filter(|view| view.marked) {
                mark(client, &view.uid, &view.info, None).await?;
            }
        }
        Ok::<_, kube::Error>(())
    };
    match tokio::time::timeout(TIMEOUT, unmark).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "pods keep the mark of being captured"),
        Err(_) => {
            tracing::debug!("pods keep the mark of being captured: the API server does not answer")
        }
    }
}

/// Sets or removes the annotation. It goes through the status, so that the right to do it is no
/// right to change what a pod runs; the uid in the patch makes the API server refuse it for another
/// pod of the same name.
async fn mark(
    client: &Client,
    uid: &Uid,
    info: &Info,
    value: Option<&str>,
) -> Result<(), kube::Error> {
    let pods: Api<KubePod> = Api::namespaced(client.clone(), &info.namespace);
    let patch = serde_json::json!({
        "metadata": {"uid": uid.as_str(), "annotations": {REDIRECTION: value}},
    });
    match pods
        .patch_status(&info.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        // The pod is gone, or is another one by now; the watch is about to say so.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// What jobs are done with.
struct Hands {
    runtime: Runtime,
    client: Client,
    recorder: Recorder,
    sink: Sink,
}

impl Hands {
    async fn work(&self, job: &Job) -> Result<(), String> {
        match job.task {
            Task::Capture => {
                let netns = self
                    .runtime
                    .netns(&job.uid)
                    .await
                    .map_err(|error| line(&error))?;
                let pod = Pod {
                    uid: job.uid.clone(),
                    info: job.info.clone(),
                    netns,
                };
                self.sink.report(Event::Added(pod)).await
            }
            Task::Release => self.sink.report(Event::Removed(job.uid.clone())).await,
            Task::Mark => self.mark(job, Some(ENABLED)).await,
            Task::Unmark => self.mark(job, None).await,
        }
    }

    async fn mark(&self, job: &Job, value: Option<&str>) -> Result<(), String> {
        match tokio::time::timeout(TIMEOUT, mark(&self.client, &job.uid, &job.info, value)).await {
            Ok(outcome) => outcome.map_err(|error| format!("cannot annotate the pod: {error}")),
            Err(_) => Err("cannot annotate the pod: the API server does not answer".to_owned()),
        }
    }

    /// Tells people that a pod is not served, in the log and on the pod itself.
    async fn tell(&self, job: &Job, error: String) {
        tracing::warn!(pod = %job.info, uid = %job.uid, task = ?job.task, error, "a pod can't be taken into the mesh");
        let reference = k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(job.info.name.clone()),
            namespace: Some(job.info.namespace.clone()),
            uid: Some(job.uid.to_string()),
            ..Default::default()
        };
        let event = KubeEvent {
            type_: EventType::Warning,
            reason: "MeshCaptureFailed".to_owned(),
            note: Some(error.chars().take(1000).collect()),
            action: format!("{:?}", job.task),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, "cannot write a Kubernetes event");
        }
    }
}
