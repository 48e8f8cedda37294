//! Several replicas: all serve, one writes; one that goes, in whatever way, takes nothing with it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plane::replica::Replica;
use plane::until::until;

use super::ground::*;

/// Short, so that a killed leader is followed soon.
const LEASE: [(&str, &str); 1] = [("LEASE_DURATION_SECONDS", "3")];
/// Longer than anything is waited for: whoever follows here was handed the lease. Others look at it every
/// two fifteenths of this, which must be less.
const LONG_LEASE: [(&str, &str); 1] = [("LEASE_DURATION_SECONDS", "200")];

async fn replicas(ground: &Ground, count: usize, environment: &[(&str, &str)]) -> Vec<Replica> {
    let started: Vec<_> = (0..count)
        .map(|number| ground.launch(&format!("control-{number}"), environment))
        .collect();
    for replica in &started {
        replica.ready().await.unwrap();
    }
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_agree_on_one_root_and_one_writer() {
    let ground = Ground::new().await;
    let all = replicas(&ground, 4, &LONG_LEASE).await;
    let references: Vec<&Replica> = all.iter().collect();
    let first = leader(&references).await;
    assert!(ground.holder().await.0.starts_with(&all[first].name));
    ground.apply(&service("web")).await;
    // Each of them, reached alone, has the same root and the same resources.
    let mut versions = Vec::new();
    for replica in &all {
        let proxy = ground.proxy(&[replica], "ztunnel").await;
        let known = proxy
            .until("web is told", PATIENCE, |known| {
                known.resources.contains_key(&told("web"))
            })
            .await
            .unwrap();
        versions.push(known.resources);
    }
    assert!(versions.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_go_hands_over_at_once() {
    let ground = Ground::new().await;
    let mut all = replicas(&ground, 2, &LONG_LEASE).await;
    let going = leader(&[&all[0], &all[1]]).await;
    let mut leaving = all.remove(going);
    let begun = Instant::now();
    leaving.program.end(PATIENCE).await.unwrap();
    assert_eq!(leader(&[&all[0]]).await, 0);
    assert!(
        begun.elapsed() < Duration::from_secs(100),
        "it was handed over, not waited for"
    );
    let said = leaving.program.said();
    assert!(said.contains("the lease is given back"), "{said}");
    ground.apply(&policy("after")).await;
    assert_eq!(ground.condition(&policy("after")).await["status"], "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_under_load_loses_nothing() {
    const OBJECTS: usize = 60;
    let ground = Ground::new().await;
    let mut all = replicas(&ground, 3, &LEASE).await;
    let references: Vec<&Replica> = all.iter().collect();
    let first = leader(&references).await;
    let mut proxies = Vec::new();
    for number in 0..9 {
        // Each begins at another replica.
        let mut way = ground.way(&references).await;
        way.addresses.rotate_left(number % 3);
        proxies.push(plane::proxy::Proxy::start(way, format!("ztunnel-{number}")));
    }
    ground.apply(&service("first")).await;
    for proxy in &proxies {
        proxy
            .until("the first service is told", PATIENCE, |known| {
                known.resources.contains_key(&told("first"))
            })
            .await
            .unwrap();
    }
    // A proxy that is told to forget what exists would break connections: it must never happen.
    let watches = proxies.iter().map(|proxy| {
        let mut known = proxy.known();
        tokio::spawn(async move {
            let mut most = 0;
            while known.changed().await.is_ok() {
                let have = known.borrow_and_update().resources.len();
                assert!(have >= most, "{most} resources became {have}");
                most = have;
            }
        })
    });
    let watches: Vec<_> = watches.collect();
    for number in 0..OBJECTS {
        if number == OBJECTS / 3 {
            all[first].program.kill().unwrap();
        }
        ground.apply(&service(&format!("s{number}"))).await;
        ground.apply(&policy(&format!("p{number}"))).await;
    }
    for proxy in &proxies {
        proxy
            .until("every service is told", PATIENCE, |known| {
                (0..OBJECTS)
                    .all(|number| known.resources.contains_key(&told(&format!("s{number}"))))
            })
            .await
            .unwrap();
    }
    for number in 0..OBJECTS {
        let object = policy(&format!("p{number}"));
        assert_eq!(ground.condition(&object).await["status"], "True");
    }
    let moved = proxies
        .iter()
        .filter(|proxy| proxy.connections() > 1)
        .count();
    assert_eq!(
        moved, 3,
        "those of the killed replica, and no others, went elsewhere"
    );
    drop(proxies);
    for watch in watches {
        watch.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_does_not_write_when_it_comes_back() {
    let ground = Ground::new().await;
    let all = replicas(&ground, 2, &LEASE).await;
    let first = leader(&[&all[0], &all[1]]).await;
    let (old, new) = (&all[first], &all[1 - first]);
    let before = ground.holder().await.1;
    old.program.signal(Signal::SIGSTOP).unwrap();
    until("the other leads", PATIENCE, || async {
        new.leads().await.then_some(())
    })
    .await
    .unwrap();
    ground.apply(&policy("meanwhile")).await;
    assert_eq!(
        ground.condition(&policy("meanwhile")).await["status"],
        "True"
    );
    let statuses = "culvert_control_statuses_total";
    old.program.signal(Signal::SIGCONT).unwrap();
    until("the old leader knows", PATIENCE, || async {
        (old.metric("culvert_control_leading").await == Some(0.0)).then_some(())
    })
    .await
    .unwrap();
    assert!(new.leads().await);
    assert_eq!(
        ground.holder().await.1,
        before + 1,
        "the lease went over once"
    );
    assert_eq!(old.metric(statuses).await, Some(0.0), "it wrote nothing");
    assert_eq!(new.metric(statuses).await, Some(1.0));
}
