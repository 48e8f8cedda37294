//! The store under every order of events, with resources that are written in words:
//! `v2 eds:a sds:s` is version 2 of something that needs endpoints and a secret, `bad` is refused.
//! Long because the events that are told here one by one are drawn by chance at its end.

mod extensions;
mod words;

use proptest::prelude::*;

use super::*;
use crate::model::listener::ListenerKind;
use words::{Words, set};

/// A store, its clock, and what it publishes.
struct World {
    store: Store<Words>,
    current: Current,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let current = Current::default();
        Self {
            store: Store::new(Words::default(), Secrets::default(), current.clone()),
            current,
            now: Instant::now(),
        }
    }

    fn change(&mut self, kind: Kind, updated: &[(&str, &str)], removed: &[&str]) -> Vec<String> {
        let updated = updated.iter().map(|(name, text)| Update {
            name: (*name).into(),
            version: "1".into(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        });
        let change = Change {
            kind,
            updated: updated.collect(),
            removed: removed.iter().map(|name| (*name).into()).collect(),
        };
        let rejected = self.store.apply(change, self.now);
        self.store.settle(self.now);
        let rejected = rejected.into_iter();
        rejected
            .map(|it| format!("{}: {}", it.name, it.reason))
            .collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.store.settle(self.now);
    }

    /// The snapshot in words.
    fn told(&self) -> Vec<String> {
        let snapshot = self.current.snapshot();
        let mut told = Vec::new();
        for (name, entry) in &snapshot.clusters {
            let endpoints = entry.endpoints.load();
            let endpoints = endpoints.localities.first().map(|set| set.name.to_string());
            let text = &entry.cluster.stat_name;
            told.push(format!(
                "cluster {name}: {text} → {}",
                endpoints.unwrap_or_default()
            ));
        }
        for (name, listener) in &snapshot.listeners {
            let ListenerKind::Internal(dispatch) = &listener.kind else {
                continue;
            };
            told.push(format!("listener {name}: {}", dispatch.chains[0].name));
        }
        for (name, table) in &snapshot.routes {
            told.push(format!("routes {name}: {}", table.name));
        }
        told.sort();
        told
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_served_before_all_of_the_first_push_is_there() {
    let mut world = World::new();
    world.change(Kind::Listener, &[("l", "v1 rds:r")], &[]);
    world.change(Kind::Cluster, &[("c", "v1 eds:e sds:s")], &[]);
    assert_eq!(world.store.wanted(Kind::Endpoints), ["e".into()].into());
    assert_eq!(world.store.wanted(Kind::Routes), ["r".into()].into());
    assert_eq!(world.store.wanted(Kind::Secret), ["s".into()].into());
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    world.change(Kind::Routes, &[("r", "v1")], &[]);
    assert!(!world.store.is_ready());
    assert!(world.told().is_empty());
    world.change(Kind::Secret, &[("s", "v1")], &[]);
    assert!(world.store.is_ready());
    assert_eq!(
        world.told(),
        [
            "cluster c: v1 eds:e sds:s → v1",
            "listener l: v1 rds:r",
            "routes r: v1"
        ]
    );
}

#[test]
fn what_never_comes_is_given_up() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e")], &[]);
    world.change(Kind::Listener, &[("l", "v1")], &[]);
    let next = world.store.settle(world.now);
    assert_eq!(next, Some(world.now + FETCH_TIMEOUT));
    world.pass(FETCH_TIMEOUT);
    assert_eq!(world.told(), ["cluster c: v1 eds:e → ", "listener l: v1"]);
    // It comes in the end.
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    assert_eq!(world.told()[0], "cluster c: v1 eds:e → v1");
}

#[test]
fn a_name_that_there_is_none_of_is_an_answer() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e")], &[]);
    world.change(Kind::Listener, &[], &[]);
    assert!(!world.store.is_ready());
    world.change(Kind::Endpoints, &[], &["e"]);
    assert!(world.store.is_ready());
}

#[test]
fn an_endpoint_change_touches_its_cell_alone() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e"), ("d", "v1 eds:e")], &[]);
    world.change(Kind::Listener, &[], &[]);
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    let before = world.current.snapshot();
    world.change(Kind::Endpoints, &[("e", "v2")], &[]);
    assert!(Arc::ptr_eq(&before, &world.current.snapshot()));
    assert_eq!(
        world.told(),
        ["cluster c: v1 eds:e → v2", "cluster d: v1 eds:e → v2"]
    );
}

#[test]
fn a_changed_cluster_keeps_its_number_and_endpoints_and_the_rest_stays_as_it_is() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e"), ("d", "v1")], &[]);
    world.change(Kind::Listener, &[("l", "v1")], &[]);
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    let before = world.current.snapshot();
    let compiled = world.store.compiler().compiled;
    // A state-of-the-world control plane sends all again.
    world.change(Kind::Cluster, &[("c", "v2 eds:e"), ("d", "v1")], &[]);
    world.change(Kind::Listener, &[("l", "v1")], &[]);
    let after = world.current.snapshot();
    assert_eq!(world.store.compiler().compiled, compiled + 1);
    assert_eq!(before.clusters["c"].id, after.clusters["c"].id);
    assert!(Arc::ptr_eq(
        &before.clusters["c"].endpoints,
        &after.clusters["c"].endpoints
    ));
    assert!(Arc::ptr_eq(&before.clusters["d"], &after.clusters["d"]));
    assert!(Arc::ptr_eq(&before.listeners["l"], &after.listeners["l"]));
    assert_ne!(before.clusters["c"].id, before.clusters["d"].id);
}

#[test]
fn a_push_is_held_a_moment_and_what_is_not_there_keeps_its_old_form() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1")], &[]);
    world.change(Kind::Listener, &[("l", "v1")], &[]);
    world.change(Kind::Cluster, &[("c", "v2 eds:e"), ("d", "v1")], &[]);
    world.change(Kind::Listener, &[("l", "v2")], &[]);
    assert_eq!(world.told(), ["cluster c: v1 → v1", "listener l: v1"]);
    world.pass(HOLD);
    assert_eq!(
        world.told(),
        ["cluster c: v1 → v1", "cluster d: v1 → v1", "listener l: v2"]
    );
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    assert_eq!(world.told()[0], "cluster c: v2 eds:e → v1");
}

#[test]
fn a_refused_resource_is_named_and_its_last_good_version_stays() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e")], &[]);
    world.change(Kind::Listener, &[("l", "v1 rds:r")], &[]);
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    world.change(Kind::Routes, &[("r", "v1")], &[]);
    let before = world.told();
    let rejected = world.change(Kind::Listener, &[("l", "bad"), ("m", "v1")], &[]);
    assert_eq!(rejected, ["l: is bad"]);
    world.change(Kind::Cluster, &[("c", "bad")], &[]);
    world.change(Kind::Endpoints, &[("e", "bad")], &[]);
    world.change(Kind::Routes, &[("r", "bad")], &[]);
    let names: Vec<_> = world
        .store
        .refused()
        .keys()
        .map(|(_, name)| &**name)
        .collect();
    assert_eq!(names, ["c", "e", "l", "r"]);
    let mut expected = before;
    expected.insert(2, "listener m: v1".to_owned());
    assert_eq!(world.told(), expected);
    world.change(Kind::Listener, &[("l", "v2 rds:r")], &[]);
    assert_eq!(world.store.refused().len(), 3);
}

#[test]
fn a_listener_is_served_without_a_chain_that_is_refused() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[], &[]);
    let partly = [("l", "v1 without:c")];
    let rejected = world.change(Kind::Listener, &partly, &[]);
    assert_eq!(rejected, ["l: c is not served"]);
    assert!(world.store.is_ready());
    assert_eq!(world.told(), ["listener l: v1 without:c"]);
    // The same again is the same refusal, and something whole is none.
    assert_eq!(world.change(Kind::Listener, &partly, &[]), rejected);
    assert_eq!(world.store.refused().len(), 1);
    assert!(world.change(Kind::Listener, &[("l", "v2")], &[]).is_empty());
    assert!(world.store.refused().is_empty());
    assert_eq!(
        world.change(Kind::Listener, &[("l", "bad")], &[]),
        ["l: is bad"]
    );
    assert!(world.change(Kind::Listener, &[("l", "v2")], &[]).is_empty());
    assert_eq!(world.told(), ["listener l: v2"]);
}

#[test]
fn a_removed_cluster_lingers_and_may_come_back() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e"), ("d", "v1")], &[]);
    world.change(Kind::Listener, &[("l", "v1")], &[]);
    world.change(Kind::Endpoints, &[("e", "v1")], &[]);
    let id = world.current.snapshot().clusters["c"].id;
    world.change(Kind::Cluster, &[], &["c", "d"]);
    assert_eq!(world.told().len(), 3);
    world.change(Kind::Cluster, &[("c", "v1 eds:e")], &[]);
    world.pass(LINGER);
    assert_eq!(world.told(), ["cluster c: v1 eds:e → v1", "listener l: v1"]);
    assert_eq!(world.current.snapshot().clusters["c"].id, id);
    world.change(Kind::Cluster, &[], &["c"]);
    world.change(Kind::Listener, &[], &["l"]);
    assert_eq!(world.told(), ["cluster c: v1 eds:e → v1"]);
    world.pass(LINGER);
    assert!(world.told().is_empty());
    assert!(world.store.wanted(Kind::Endpoints).is_empty());
}

#[test]
fn a_step_within_the_proxy_is_taken_but_not_served() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[], &[]);
    world.change(Kind::Listener, &[("l", "v1"), ("m", "step")], &[]);
    assert_eq!(world.told(), ["listener l: v1"]);
    assert_eq!(world.store.resources(Kind::Listener).len(), 2);
    world.change(Kind::Listener, &[("l", "step")], &[]);
    assert!(world.told().is_empty());
}

#[test]
fn names_are_told_to_have_changed_once() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[("c", "v1 eds:e")], &[]);
    assert_eq!(world.store.take_changed_wants(), [Kind::Endpoints].into());
    assert!(world.store.take_changed_wants().is_empty());
    world.change(Kind::Cluster, &[("c", "v2 eds:e")], &[]);
    assert!(world.store.take_changed_wants().is_empty());
    world.change(Kind::Cluster, &[("c", "v3 eds:f")], &[]);
    assert_eq!(world.store.take_changed_wants(), [Kind::Endpoints].into());
    assert!(world.store.wanted(Kind::Endpoints).contains("f"));
}

#[test]
fn hosts_are_resolved_before_their_cluster_is_served() {
    let mut world = World::new();
    world.change(Kind::Listener, &[], &[]);
    world.change(Kind::Cluster, &[("c", "v1 dns:x")], &[]);
    assert!(!world.store.is_ready());
    assert_eq!(world.store.host_names().len(), 1);
    world.store.resolved(&"c".into(), Some(set("10.0.0.1")));
    world.store.settle(world.now);
    assert_eq!(world.told(), ["cluster c: v1 dns:x → 10.0.0.1"]);
    world.store.resolved(&"c".into(), None);
    assert_eq!(world.told(), ["cluster c: v1 dns:x → 10.0.0.1"]);
    // Another version keeps what is known meanwhile.
    world.change(Kind::Cluster, &[("c", "v2 dns:y")], &[]);
    assert_eq!(world.told(), ["cluster c: v2 dns:y → 10.0.0.1"]);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Set(Kind, &'static str, String),
    Remove(Kind, &'static str),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        Kind::Cluster,
        Kind::Endpoints,
        Kind::Listener,
        Kind::Routes,
    ]);
    let name = prop::sample::select(vec!["a", "b"]);
    let text = (
        0..3_u8,
        prop::sample::select(vec!["", " eds:a rds:a", " eds:b rds:b", " bad"]),
    )
        .prop_map(|(version, needs)| format!("v{version}{needs}"));
    prop_oneof![
        6 => (kind.clone(), name.clone(), text).prop_map(|(k, n, t)| Event::Set(k, n, t)),
        2 => (kind, name).prop_map(|(kind, name)| Event::Remove(kind, name)),
        2 => (1..3000_u64).prop_map(Event::Wait),
    ]
}

impl World {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Set(kind, name, text) => drop(self.change(*kind, &[(name, text)], &[])),
            Event::Remove(kind, name) => drop(self.change(*kind, &[], &[name])),
            Event::Wait(millis) => self.pass(Duration::from_millis(*millis)),
        }
    }
}

proptest! {
    /// Whatever happened before, in the end that is served which would be served if only the last
    /// good version of everything had ever come.
    #[test]
    fn the_way_there_leaves_no_trace(events in prop::collection::vec(event(), 0..40)) {
        let mut world = World::new();
        world.change(Kind::Cluster, &[], &[]);
        world.change(Kind::Listener, &[], &[]);
        let mut last = BTreeMap::new();
        for event in &events {
            world.happen(event);
            match event {
                Event::Set(kind, name, text) if !text.contains("bad") => {
                    last.insert((*kind, *name), text.clone());
                }
                // What others may still name stays for them.
                Event::Remove(kind @ (Kind::Cluster | Kind::Listener), name) => {
                    last.remove(&(*kind, *name));
                }
                _ => {}
            }
        }
        world.pass(LONG);

        let mut direct = World::new();
        direct.change(Kind::Cluster, &[], &[]);
        direct.change(Kind::Listener, &[], &[]);
        for ((kind, name), text) in &last {
            direct.change(*kind, &[(name, text)], &[]);
        }
        direct.pass(LONG);
        let in_force = |world: &World| -> Vec<_> {
            let told = world.told().into_iter();
            // Tables and endpoints that nobody names may or may not be there.
            told.filter(|line| !line.starts_with("routes"))
                .map(|line| line.split(" → ").next().unwrap_or_default().to_owned())
                .collect()
        };
        prop_assert_eq!(in_force(&world), in_force(&direct));
    }

    /// The order in which the parts of a push arrive doesn't matter.
    #[test]
    fn any_order_gives_the_same_snapshot(order in Just(vec![
        Event::Set(Kind::Cluster, "a", "v1 eds:a".to_owned()),
        Event::Set(Kind::Cluster, "b", "v1 eds:b sds:s".to_owned()),
        Event::Set(Kind::Cluster, "c", "v1".to_owned()),
        Event::Set(Kind::Endpoints, "a", "v1".to_owned()),
        Event::Set(Kind::Endpoints, "b", "v2".to_owned()),
        Event::Set(Kind::Listener, "a", "v1 rds:a".to_owned()),
        Event::Set(Kind::Listener, "b", "v1".to_owned()),
        Event::Set(Kind::Listener, "c", "bad".to_owned()),
        Event::Set(Kind::Routes, "a", "v3".to_owned()),
        Event::Set(Kind::Secret, "s", "v1".to_owned()),
        Event::Wait(10),
    ]).prop_shuffle()) {
        let mut world = World::new();
        for event in &order {
            world.happen(event);
        }
        world.pass(HOLD);
        prop_assert_eq!(world.told(), [
            "cluster a: v1 eds:a → v1",
            "cluster b: v1 eds:b sds:s → v2",
            "cluster c: v1 → v1",
            "listener a: v1 rds:a",
            "listener b: v1",
            "routes a: v3",
        ]);
        prop_assert_eq!(world.store.refused().len(), 1);
    }
}
