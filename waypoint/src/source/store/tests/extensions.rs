//! Filters that come separately, and plugins whose code takes longer than their configuration.

use super::*;
use crate::model::wasm::Module;

impl World {
    /// The filters in force, in words.
    fn extensions(&self) -> Vec<String> {
        let snapshot = self.current.snapshot();
        let told = snapshot.extensions.iter();
        told.map(|(name, it)| format!("{name}: {}", it.kind))
            .collect()
    }

    /// The code of every plugin that was met turns out to be none.
    fn settle_plugins(&mut self) -> usize {
        let plugins = self.store.take_plugins();
        for plugin in &plugins {
            plugin.module.store(Arc::new(Module::Failed("none".into())));
        }
        self.store.settle(self.now);
        plugins.len()
    }
}

#[test]
fn a_listener_waits_for_its_filter_and_the_filter_for_its_code() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[], &[]);
    world.change(Kind::Listener, &[("l", "v1 ecds:p")], &[]);
    assert_eq!(world.store.wanted(Kind::Extension), ["p".into()].into());
    world.change(Kind::Extension, &[("p", "v1 plugin:x")], &[]);
    assert!(!world.store.is_ready());
    // Its code may take longer than other resources may.
    world.pass(FETCH_TIMEOUT);
    assert!(!world.store.is_ready());
    assert_eq!(world.settle_plugins(), 1);
    assert!(world.store.is_ready());
    assert_eq!(world.extensions(), ["p: v1 plugin:x"]);
    // Each is seen to once.
    assert_eq!(world.settle_plugins(), 0);
}

#[test]
fn the_last_plugin_stays_until_the_next_ones_code_is_there() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[], &[]);
    world.change(Kind::Listener, &[("l", "v1 ecds:p")], &[]);
    world.change(Kind::Extension, &[("p", "v1")], &[]);
    assert_eq!(world.extensions(), ["p: v1"]);
    world.change(Kind::Extension, &[("p", "v2 plugin:x")], &[]);
    world.pass(HOLD);
    assert_eq!(world.extensions(), ["p: v1"]);
    // What has nothing to do with it isn't held for long.
    world.change(Kind::Cluster, &[("c", "v1")], &[]);
    world.pass(HOLD);
    assert!(
        world.told().contains(&"cluster c: v1 → v1".to_owned()),
        "{:?}",
        world.told()
    );
    assert_eq!(world.settle_plugins(), 1);
    assert_eq!(world.extensions(), ["p: v2 plugin:x"]);
    let refused = world.change(Kind::Extension, &[("p", "bad")], &[]);
    assert_eq!(refused, ["p: is bad"]);
    assert_eq!(world.extensions(), ["p: v2 plugin:x"]);
}

#[test]
fn code_that_never_comes_is_given_up_and_so_is_the_filter() {
    let mut world = World::new();
    world.change(Kind::Cluster, &[], &[]);
    world.change(
        Kind::Listener,
        &[("l", "v1 ecds:p"), ("m", "v1 ecds:q")],
        &[],
    );
    world.change(Kind::Extension, &[("p", "v1 plugin:x")], &[]);
    world.pass(LOAD);
    assert!(world.store.is_ready());
    // It is in force, and its requests meet no plugin.
    assert_eq!(world.extensions(), ["p: v1 plugin:x"]);
    assert_eq!(
        world.told(),
        ["listener l: v1 ecds:p", "listener m: v1 ecds:q"]
    );
    // A filter goes with the last listener that has it.
    world.change(Kind::Extension, &[], &["p"]);
    assert_eq!(world.extensions(), ["p: v1 plugin:x"]);
    world.change(Kind::Listener, &[], &["l"]);
    world.change(Kind::Cluster, &[("c", "v1")], &[]);
    assert!(world.extensions().is_empty(), "{:?}", world.extensions());
}
