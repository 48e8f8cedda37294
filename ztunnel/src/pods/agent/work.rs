//! What the node agent has to do next: a pure core. It is told what Kubernetes says and how jobs
//! went, and gives out jobs. For each pod the order is fixed: capture before the mark, so that no
//! peer sends HBONE to a pod that can't take it; on leaving, the mark goes first, and the capture a
//! little later, when peers have heard.
//!
//! ```text
//!               Capture                Mark
//!        out ───────────▶ captured ───────────▶ captured, marked
//!         ▲                                          │ Unmark
//!         └──────────── captured, unmarked ◀─────────┘
//!            Release
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::enrolment::View;
use crate::pods::{Info, Uid};

/// Jobs that are done at once; each takes one call to the runtime or the API server.
const AT_ONCE: usize = 8;
/// The pause after a job's first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a pod stays captured after its mark went, so that peers hear of it first.
const LEAVING: Duration = Duration::from_secs(1);

/// Something to do for one pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Job {
    /// The pod's unique identifier.
    pub(super) uid: Uid,
    /// Who it is.
    pub(super) info: Info,
    /// What to do.
    pub(super) task: Task,
}

/// What can be done for a pod.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Task {
    /// Find its namespace and capture it.
    Capture,
    /// Mark it as captured.
    Mark,
    /// Take the mark away.
    Unmark,
    /// Let it go.
    Release,
}

/// The pods of this node and what each still needs.
#[derive(Debug, Default)]
pub(super) struct Work {
    namespaces: HashMap<String, String>,
    pods: HashMap<Uid, Tracked>,
    namespaces_known: bool,
    pods_known: bool,
    busy: usize,
}

#[derive(Debug)]
struct Tracked {
    view: View,
    exists: bool,
    captured: bool,
    tried: bool,
    busy: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Work {
    /// A namespace exists and its label says `mode`.
    pub(super) fn namespace(&mut self, name: &str, mode: Option<String>) {
        match mode {
            Some(mode) => self.namespaces.insert(name.to_owned(), mode),
            None => self.namespaces.remove(name),
        };
    }

    /// All namespaces were named anew, with their labels' values; others no longer exist.
    pub(super) fn namespaces_listed(&mut self, named: HashMap<String, String>) {
        self.namespaces = named;
        self.namespaces_known = true;
    }

    /// A pod exists and looks like this.
    pub(super) fn pod(&mut self, view: View) {
        let tracked = self
            .pods
            .entry(view.uid.clone())
            .or_insert_with(|| Tracked {
                view: view.clone(),
                exists: true,
                captured: false,
                tried: false,
                busy: false,
                failures: 0,
                not_before: None,
            });
        tracked.exists = true;
        tracked.view = view;
    }

    /// A pod is gone.
    pub(super) fn pod_gone(&mut self, uid: &Uid) {
        if let Some(tracked) = self.pods.get_mut(uid) {
            tracked.exists = false;
            tracked.not_before = None;
        }
        self.forget_the_gone();
    }

    /// All pods were named anew; only `named` exist.
    pub(super) fn pods_listed(&mut self, named: Vec<View>) {
        for tracked in self.pods.values_mut() {
            tracked.exists = false;
        }
        for view in named {
            self.pod(view);
        }
        self.pods_known = true;
        self.forget_the_gone();
    }

    /// True once every pod that should be captured has been tried: the first listing is handled.
    pub(super) fn listed(&self) -> bool {
        let pending = |tracked: &Tracked| !tracked.tried && self.wanted(tracked);
        self.namespaces_known && self.pods_known && !self.pods.values().any(pending)
    }

    /// The next job that is due at `now`, which from here on is under way.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        if !self.namespaces_known || !self.pods_known || self.busy >= AT_ONCE {
            return None;
        }
        let due =
            |tracked: &Tracked| !tracked.busy && tracked.not_before.is_none_or(|time| time <= now);
        let (uid, task) = self
            .pods
            .iter()
            .filter(|(_, tracked)| due(tracked))
            .find_map(|(uid, tracked)| Some((uid.clone(), self.task(tracked)?)))?;
        let tracked = self.pods.get_mut(&uid)?;
        tracked.busy = true;
        self.busy += 1;
        Some(Job {
            uid,
            info: tracked.view.info.clone(),
            task,
        })
    }

    /// When the next job falls due that is not due yet.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let waiting = self
            .pods
            .values()
            .filter(|tracked| !tracked.busy && self.task(tracked).is_some());
        waiting.filter_map(|tracked| tracked.not_before).min()
    }

    /// A job has ended, well or not.
    pub(super) fn finished(&mut self, job: &Job, succeeded: bool, now: Instant) {
        self.busy = self.busy.saturating_sub(1);
        let Some(tracked) = self.pods.get_mut(&job.uid) else {
            return;
        };
        tracked.busy = false;
        tracked.tried = true;
        if !succeeded {
            let pause = FIRST_PAUSE
                .saturating_mul(1 << tracked.failures.min(16))
                .min(LONGEST_PAUSE);
            tracked.failures += 1;
            tracked.not_before = Some(now + pause);
            return;
        }
        tracked.failures = 0;
        tracked.not_before = None;
        match job.task {
            Task::Capture => tracked.captured = true,
            Task::Mark => tracked.view.marked = true,
            Task::Unmark => {
                tracked.view.marked = false;
                tracked.not_before = Some(now + LEAVING);
            }
            Task::Release => tracked.captured = false,
        }
        self.forget_the_gone();
    }

    fn wanted(&self, tracked: &Tracked) -> bool {
        let mode = self.namespaces.get(&tracked.view.info.namespace);
        tracked.exists && tracked.view.enrolled(mode.map(String::as_str))
    }

    fn task(&self, tracked: &Tracked) -> Option<Task> {
        let wanted = self.wanted(tracked);
        match (wanted, tracked.captured, tracked.view.marked) {
            (true, false, _) => Some(Task::Capture),
            (true, true, false) => Some(Task::Mark),
            (true, true, true) => None,
            (false, _, true) if tracked.exists => Some(Task::Unmark),
            (false, true, _) => Some(Task::Release),
            (false, false, _) => None,
        }
    }

    fn forget_the_gone(&mut self) {
        self.pods
            .retain(|_, tracked| tracked.exists || tracked.captured || tracked.busy);
    }
}

#[cfg(test)]
mod tests;
