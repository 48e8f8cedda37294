//! Data comes late, or never.

use mesh::policy::PolicyName;
use mesh::world::Synced;

use super::*;
use crate::testing::{call, found, info, pod, policy, world};

fn hold(world: &SharedWorld) -> Hold {
    Hold::new(world.clone(), Metrics::new().0)
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_told_of_late_is_waited_for() {
    let world = world([]);
    let hold = hold(&world);
    let asked = tokio::spawn(async move { hold.own(&info("web")).await });
    tokio::time::sleep(PATIENCE / 2).await;
    assert!(!asked.is_finished());
    world.update(|world| world.insert_workload(pod("web", "10.0.0.1")));
    assert_eq!(&*asked.await.unwrap().unwrap().name, "web");
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_the_error_names_the_pod() {
    let hold = hold(&world([]));
    let begun = tokio::time::Instant::now();
    let error = hold.own(&info("web")).await.unwrap_err().to_string();
    assert_eq!(begun.elapsed(), PATIENCE);
    assert!(
        error.contains("default/web") && error.contains("5s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_service_account_is_another_pod() {
    let hold = hold(&world([pod("web", "10.0.0.1")]));
    let mut impostor = info("web");
    impostor.service_account = "other".to_owned();
    assert!(matches!(hold.own(&impostor).await, Err(Error::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_decision_waits_for_the_policy_it_needs_and_never_opens_without() {
    let world = world([pod("web", "10.0.0.1")]);
    let web = found(&world, "web");
    world.update(|world| {
        let mut web = (*web).clone();
        web.policies.push(PolicyName::new("default", "on-its-way"));
        world.insert_workload(web);
    });
    let error = hold(&world)
        .authorize(&web, &call(None, &web))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Denied(denied) if denied.is_pending()),
        "{error}"
    );
    assert!(error.to_string().contains("default/on-its-way"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait() {
    let world = SharedWorld::new(World::new(""));
    let hold = hold(&world);
    let waiting: Vec<_> = (0..MOST_HELD)
        .map(|_| {
            let hold = hold.clone();
            tokio::spawn(async move { hold.own(&info("web")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::time::sleep(PATIENCE / 2).await;
    assert!(matches!(hold.own(&info("web")).await, Err(Error::Full)));
    world.update(|world| {
        world.insert_workload(pod("web", "10.0.0.1"));
        world.mark_synced(Synced {
            workloads: true,
            policies: true,
        });
    });
    for held in waiting {
        held.await.unwrap().unwrap();
    }
    assert!(hold.own(&info("web")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_denial_names_the_policies_that_could_have_allowed() {
    let world = world([pod("web", "10.0.0.1")]);
    let web = found(&world, "web");
    world.update(|world| {
        world.insert_policy(policy("viewer", Action::Allow, "sleep"));
        let mut selecting = policy("selecting", Action::Allow, "sleep");
        selecting.scope = Scope::Selector;
        world.insert_policy(selecting);
    });
    let hold = hold(&world);
    let error = hold
        .authorize(&web, &call(Some("notsleep"), &web))
        .await
        .unwrap_err();
    assert!(
        error.is_denial() && error.to_string().contains("default/viewer"),
        "{error}"
    );
    world.update(|world| {
        let mut web = (*web).clone();
        web.policies.push(PolicyName::new("default", "selecting"));
        world.insert_workload(web);
    });
    let error = hold
        .authorize(&web, &call(Some("notsleep"), &web))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("(default/selecting)"), "{error}");
    assert!(
        hold.authorize(&web, &call(Some("sleep"), &web))
            .await
            .is_ok()
    );
}
