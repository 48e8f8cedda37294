//! The life of captured pods: acts on what the pod sources say, one event after another. A pod that
//! is added gets captured, and its three listeners are served from then on; one that is removed is
//! let go, while its open connections end in their own time. A pod that can't be captured now is
//! tried again.

mod accept;
mod identities;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh::certificate::Certificates;
use mesh::drain::{Signal, Watch};
use mesh::hbone::Pool;
use mesh::identity::TrustDomain;
use mesh::world::SharedWorld;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::accept::Accept;
use self::identities::Identities;
use crate::capture::{Capture, Netns, PodSockets};
use crate::connections::Connections;
use crate::hold::Hold;
use crate::inbound::{Hbone, Plaintext};
use crate::outbound::Outbound;
use crate::pods::state::{Added, Pods};
use crate::pods::{Event, Info, NetnsId, Pod, Request, Uid};
use crate::readiness::{Readiness, Step};
use crate::telemetry::metrics::Metrics;

/// How often pods that could not be captured are tried again, and capture is compared with what
/// should be.
const UPKEEP: Duration = Duration::from_secs(5);

/// What all pods' connections share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Workloads, services and policies.
    pub world: SharedWorld,
    /// Certificates of this node's pods.
    pub certificates: Certificates,
    /// What waits for data.
    pub hold: Hold,
    /// Tunnels to other nodes.
    pub pool: Pool,
    /// Open inbound connections.
    pub connections: Connections,
    /// Counters.
    pub metrics: Metrics,
    /// The trust domain of this node's pods.
    pub trust_domain: TrustDomain,
}

/// The pods of this node.
pub struct Keeper {
    capture: Capture,
    shared: Shared,
    readiness: Readiness,
    drain: Watch,
    pods: Pods,
    running: HashMap<Uid, Running>,
    waiting: HashMap<Uid, Pod>,
    identities: Identities,
}

/// A pod that is served.
struct Running {
    info: Info,
    stop: Signal,
}

impl Keeper {
    /// No pod yet.
    #[must_use]
    pub fn new(capture: Capture, shared: Shared, readiness: Readiness, drain: Watch) -> Self {
        let identities = Identities::new(shared.trust_domain.clone(), shared.certificates.clone());
        Self {
            capture,
            shared,
            readiness,
            drain,
            pods: Pods::default(),
            running: HashMap::new(),
            waiting: HashMap::new(),
            identities,
        }
    }

    /// Acts on events until this process stops. The pods' connections drain by themselves.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let stopping = self.drain.clone();
        let mut upkeep = tokio::time::interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.closing() => return,
                _ = upkeep.tick() => self.upkeep().await,
                Some(request) = requests.recv() => {
                    let outcome = self.act(request.event).await;
                    // The source may have gone meanwhile; its successor will list again.
                    let _ = request.done.send(outcome);
                }
            }
            let (captured, waiting) = self.pods.count();
            self.shared.metrics.pods(captured, waiting);
        }
    }

    async fn act(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Listing => self.pods.listing(),
            Event::Added(pod) => return self.add(pod).await,
            Event::Kept(uid) => self.pods.kept(&uid),
            Event::Removed(uid) => return self.remove(&uid).await,
            Event::Listed => return self.listed().await,
        }
        Ok(())
    }

    async fn add(&mut self, pod: Pod) -> Result<(), String> {
        let netns = NetnsId::of(&pod.netns)
            .map_err(|error| format!("the network namespace of {}: {error}", pod.info))?;
        self.waiting.remove(&pod.uid);
        match self.pods.added(&pod.uid, netns) {
            Added::Same => return Ok(()),
            Added::Replace => self.release(&pod.uid).await?,
            Added::Start => {}
        }
        self.start(pod).await
    }

    /// Captures a pod and serves it; one that can't be captured now waits for the next upkeep.
    async fn start(&mut self, pod: Pod) -> Result<(), String> {
        let enrolled = match pod.netns.try_clone() {
            Ok(netns) => self.enroll(&pod.uid, netns).await,
            Err(error) => Err(error.to_string()),
        };
        match enrolled {
            Ok(sockets) => {
                tracing::info!(pod = %pod.info, uid = %pod.uid, "captured");
                self.pods.captured(&pod.uid);
                let running = self.serve(&pod.uid, pod.info, sockets);
                self.running.insert(pod.uid, running);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(pod = %pod.info, uid = %pod.uid, error, "cannot capture a pod, will try again");
                self.shared.metrics.capture_failed();
                self.waiting.insert(pod.uid.clone(), pod);
                Err(error)
            }
        }
    }

    fn serve(&mut self, uid: &Uid, info: Info, sockets: PodSockets) -> Running {
        self.identities.came(&info);
        let (stop, drain) = self.drain.child();
        let pod = Arc::new(info.clone());
        let (process, world) = (&self.drain, &self.shared.world);
        let accept =
            |listener| Accept::new(listener, drain.clone(), process.clone(), world.clone());
        let outbound = Outbound::new(uid, Arc::clone(&pod), sockets.netns.clone(), &self.shared);
        tokio::spawn(
            accept(sockets.outbound)
                .run(move |captured, drain| outbound.clone().carry(captured, drain)),
        );
        let hbone = Hbone::new(Arc::clone(&pod), sockets.netns.clone(), &self.shared);
        tokio::spawn(
            accept(sockets.hbone).run(move |captured, drain| hbone.clone().carry(captured, drain)),
        );
        let plaintext = Plaintext::new(pod, sockets.netns, &self.shared);
        tokio::spawn(
            accept(sockets.inbound)
                .run(move |captured, drain| plaintext.clone().carry(captured, drain)),
        );
        Running { info, stop }
    }

    async fn remove(&mut self, uid: &Uid) -> Result<(), String> {
        self.waiting.remove(uid);
        if self.pods.removed(uid) {
            self.release(uid).await
        } else {
            Ok(())
        }
    }

    /// Lets a captured pod go: the kernel first, so that new connections go their own way before
    /// nobody listens for them.
    async fn release(&mut self, uid: &Uid) -> Result<(), String> {
        let (capture, text) = (self.capture.clone(), uid.to_string());
        let released = blocking(move || capture.release(&text)).await;
        if let Some(running) = self.running.remove(uid) {
            running.stop.close();
            self.shared.pool.forget(uid.as_str());
            self.identities.went(&running.info);
            tracing::info!(pod = %running.info, %uid, "released");
        }
        released
    }

    /// A full listing is done: what it did not name is let go, also what an earlier ztunnel captured.
    async fn listed(&mut self) -> Result<(), String> {
        let listed = self.pods.listed();
        for uid in &listed.gone {
            self.waiting.remove(uid);
            if self.running.contains_key(uid)
                && let Err(error) = self.release(uid).await
            {
                tracing::warn!(%uid, error, "cannot release a pod completely");
            }
        }
        let capture = self.capture.clone();
        let stay: Vec<Uid> = listed.named;
        let released = blocking(move || {
            let stay: Vec<&str> = stay.iter().map(Uid::as_str).collect();
            capture.retain(&stay)
        })
        .await?;
        if !released.is_empty() {
            tracing::info!(pods = ?released, "released pods that an earlier ztunnel had captured");
        }
        self.readiness.done(Step::Pods);
        Ok(())
    }

    async fn upkeep(&mut self) {
        for (_, pod) in std::mem::take(&mut self.waiting) {
            // Logged and kept waiting where it fails again.
            let _ = self.start(pod).await;
        }
        let capture = self.capture.clone();
        match blocking(move || capture.reconcile()).await {
            Ok(repaired) if repaired.is_empty() => {}
            Ok(repaired) => {
                self.shared.metrics.repaired(repaired.len());
                tracing::warn!(
                    ?repaired,
                    "parts of capture had been removed from outside; put back"
                );
            }
            Err(error) => tracing::warn!(error, "cannot check whether capture is complete"),
        }
    }

    async fn enroll(&self, uid: &Uid, netns: std::os::fd::OwnedFd) -> Result<PodSockets, String> {
        let (capture, uid) = (self.capture.clone(), uid.to_string());
        blocking(move || capture.enroll(&uid, Netns(netns))).await
    }
}

/// Does what blocks on a thread for that, and gives an error as one line.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::capture::Error> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| crate::error::line(&error)),
        Err(error) => Err(format!("the work on the pod did not end: {error}")),
    }
}
