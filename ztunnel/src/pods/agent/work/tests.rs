//! Pods and namespaces come and go; the jobs that follow.

use super::*;
use k8s_openapi::api::core::v1::Pod;

/// A pod of namespace `default`, with the label if it has one of its own.
fn pod(name: &str, label: Option<&str>, marked: bool) -> View {
    let labels = label.map(|value| serde_json::json!({"istio.io/dataplane-mode": value}));
    let annotations =
        marked.then(|| serde_json::json!({"ambient.istio.io/redirection": "enabled"}));
    let pod = serde_json::json!({
        "metadata": {"uid": name, "name": name, "namespace": "default", "labels": labels, "annotations": annotations},
        "spec": {"containers": []},
    });
    View::of(&serde_json::from_value::<Pod>(pod).unwrap()).unwrap()
}

/// The agent of a node, and a clock.
struct Node {
    work: Work,
    now: Instant,
}

impl Node {
    /// Namespace `default` with its label, and these pods, just listed.
    fn new(mode: Option<&str>, pods: Vec<View>) -> Self {
        let mut work = Work::default();
        work.namespaces_listed(
            mode.map(|mode| ("default".to_owned(), mode.to_owned()))
                .into_iter()
                .collect(),
        );
        work.pods_listed(pods);
        Self {
            work,
            now: Instant::now(),
        }
    }

    fn label(&mut self, mode: Option<&str>) {
        self.work.namespace("default", mode.map(str::to_owned));
    }

    /// Does every job that is due, all well, and says which they were.
    fn run(&mut self) -> Vec<(String, Task)> {
        let mut done = Vec::new();
        while let Some(job) = self.work.next(self.now) {
            self.work.finished(&job, true, self.now);
            done.push((job.uid.to_string(), job.task));
        }
        done.sort_by(|a, b| a.0.cmp(&b.0));
        done
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

fn jobs(of: &str, tasks: &[Task]) -> Vec<(String, Task)> {
    tasks.iter().map(|task| (of.to_owned(), *task)).collect()
}

#[test]
fn nothing_is_done_before_both_lists_are_known() {
    let mut work = Work::default();
    work.pods_listed(vec![pod("a", Some("ambient"), false)]);
    assert_eq!(work.next(Instant::now()), None);
    work.namespaces_listed(HashMap::new());
    assert_eq!(work.next(Instant::now()).unwrap().task, Task::Capture);
}

#[test]
fn labelling_a_namespace_captures_first_and_marks_after() {
    let mut node = Node::new(
        None,
        vec![pod("a", None, false), pod("stays-out", Some("none"), false)],
    );
    assert_eq!(node.run(), []);
    node.label(Some("ambient"));
    assert_eq!(node.run(), jobs("a", &[Task::Capture, Task::Mark]));
    assert_eq!(node.run(), []);
}

#[test]
fn leaving_takes_the_mark_away_first_and_the_capture_when_peers_have_heard() {
    let mut node = Node::new(Some("ambient"), vec![pod("a", None, false)]);
    node.run();
    node.label(None);
    assert_eq!(node.run(), jobs("a", &[Task::Unmark]));
    assert_eq!(node.work.wake_at(), Some(node.now + LEAVING));
    node.wait(LEAVING);
    assert_eq!(node.run(), jobs("a", &[Task::Release]));
}

#[test]
fn a_restart_captures_marked_pods_again_and_unmarks_those_that_left_meanwhile() {
    let mut node = Node::new(
        None,
        vec![pod("in", Some("ambient"), true), pod("left", None, true)],
    );
    assert_eq!(
        node.run(),
        [
            ("in".to_owned(), Task::Capture),
            ("left".to_owned(), Task::Unmark)
        ]
    );
}

#[test]
fn a_deleted_pod_is_released_at_once_and_forgotten() {
    let mut node = Node::new(Some("ambient"), vec![pod("a", None, false)]);
    node.run();
    node.work.pod_gone(&Uid::new("a"));
    assert_eq!(node.run(), jobs("a", &[Task::Release]));
    assert!(node.work.pods.is_empty());
}

#[test]
fn a_pod_missing_from_a_new_listing_is_released() {
    let mut node = Node::new(
        Some("ambient"),
        vec![pod("a", None, false), pod("b", None, false)],
    );
    node.run();
    node.work.pods_listed(vec![pod("b", None, true)]);
    assert_eq!(node.run(), jobs("a", &[Task::Release]));
}

#[test]
fn a_failure_is_tried_again_after_a_growing_pause_and_does_not_hold_up_readiness() {
    let mut node = Node::new(Some("ambient"), vec![pod("a", None, false)]);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(node.work.listed(), !pauses.is_empty());
        let job = node.work.next(node.now).unwrap();
        node.work.finished(&job, false, node.now);
        assert_eq!(node.work.next(node.now), None);
        let due = node.work.wake_at().unwrap();
        pauses.push(due - node.now);
        node.now = due;
    }
    assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
    assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
    assert_eq!(node.run(), jobs("a", &[Task::Capture, Task::Mark]));
}

#[test]
fn jobs_at_once_are_bounded_and_never_two_for_one_pod() {
    let mut node = Node::new(
        Some("ambient"),
        (0..AT_ONCE + 3)
            .map(|n| pod(&n.to_string(), None, false))
            .collect(),
    );
    let under_way: Vec<Job> = std::iter::from_fn(|| node.work.next(node.now)).collect();
    assert_eq!(under_way.len(), AT_ONCE);
    let names: std::collections::HashSet<_> = under_way.iter().map(|job| job.uid.clone()).collect();
    assert_eq!(names.len(), AT_ONCE);
    node.work.finished(&under_way[0], true, node.now);
    assert!(node.work.next(node.now).is_some());
    assert_eq!(node.work.next(node.now), None);
}

#[test]
fn a_pod_that_ends_while_it_is_captured_is_released_after() {
    let mut node = Node::new(Some("ambient"), vec![pod("a", None, false)]);
    let job = node.work.next(node.now).unwrap();
    node.work.pod_gone(&job.uid);
    assert_eq!(node.work.next(node.now), None);
    node.work.finished(&job, true, node.now);
    assert_eq!(node.run(), jobs("a", &[Task::Release]));
}

#[test]
fn an_old_view_after_the_mark_only_marks_again() {
    let mut node = Node::new(Some("ambient"), vec![pod("a", None, false)]);
    node.run();
    node.work.pod(pod("a", None, false));
    assert_eq!(node.run(), jobs("a", &[Task::Mark]));
}
