//! Policies change under open connections.

use std::time::Duration;

use futures_util::FutureExt;
use mesh::policy::{Action, PolicyName};

use super::*;
use crate::testing::{call, found, pod, policy, world};

/// Enforcement over a world with one pod `web`.
fn start() -> (SharedWorld, Connections) {
    let world = world([pod("web", "10.0.0.1")]);
    let connections = Connections::default();
    tokio::spawn(connections.clone().enforce(world.clone(), Metrics::new().0));
    (world, connections)
}

/// Lets every task that has something to do do it; the clock stands still.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_policy_ends_what_it_denies_and_nothing_else() {
    let (world, connections) = start();
    settle().await;
    let web = found(&world, "web");
    let mut good = connections.track(web.clone(), call(Some("sleep"), &web));
    let mut bad = connections.track(web.clone(), call(Some("notsleep"), &web));
    world.update(|world| world.insert_policy(policy("only-sleep", Action::Allow, "sleep")));
    settle().await;
    assert!(bad.denied().now_or_never().is_some());
    assert!(good.denied().now_or_never().is_none());

    world.update(|world| world.insert_policy(policy("not-sleep", Action::Deny, "sleep")));
    settle().await;
    let denied = good.denied().now_or_never().unwrap();
    assert_eq!(
        denied.policy(),
        Some(&PolicyName::new("default", "not-sleep"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_comes_to_select_the_workload_counts_too() {
    let (world, connections) = start();
    settle().await;
    let web = found(&world, "web");
    let mut open = connections.track(web.clone(), call(None, &web));
    let name = PolicyName::new("default", "strict");
    world.update(|world| {
        let mut strict = policy("strict", Action::Allow, "sleep");
        strict.scope = mesh::policy::Scope::Selector;
        world.insert_policy(strict);
    });
    settle().await;
    assert!(open.denied().now_or_never().is_none());
    world.update(|world| {
        let mut web = (*web).clone();
        web.policies.push(name);
        world.insert_workload(web);
    });
    settle().await;
    assert!(open.denied().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_undecided_connection_goes_on() {
    let (world, connections) = start();
    settle().await;
    let web = found(&world, "web");
    let mut open = connections.track(web.clone(), call(Some("sleep"), &web));
    world.update(|world| {
        let mut web = (*web).clone();
        web.policies.push(PolicyName::new("default", "on-its-way"));
        world.insert_workload(web);
    });
    settle().await;
    assert!(open.denied().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn more_connections_than_one_go_are_all_looked_at() {
    let (world, connections) = start();
    settle().await;
    let web = found(&world, "web");
    let count = DECISIONS_AT_ONCE * 2 + 7;
    let mut open: Vec<_> = (0..count)
        .map(|_| connections.track(web.clone(), call(None, &web)))
        .collect();
    world.update(|world| world.insert_policy(policy("only-sleep", Action::Allow, "sleep")));
    settle().await;
    for tracked in &mut open {
        tracked.denied().await;
    }
    assert!(connections.show().is_empty());
}

#[test]
fn a_connection_that_ends_is_no_longer_shown() {
    let world = world([pod("web", "10.0.0.1")]);
    let (connections, web) = (Connections::default(), found(&world, "web"));
    let tracked = connections.track(web.clone(), call(None, &web));
    assert_eq!(connections.show().len(), 1);
    drop(tracked);
    assert!(connections.show().is_empty());
}
