//! What the API server may do to control: stop, hang, come back having forgotten its watches, know
//! a kind only later, fail to convert what it has.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plane::install;
use plane::proxy::Known;
use plane::until::until;
use serde_json::json;

use super::ground::*;

fn broken_watches(kind: &str) -> String {
    format!("culvert_control_watch_errors_total{{kind=\"{kind}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_costs_no_change_and_no_client() {
    let mut ground = Ground::new().await;
    let control = ground.replica("control", &[]).await;
    for name in ["stays", "goes"] {
        ground.apply(&service(name)).await;
    }
    let proxy = ground.proxy(&[&control], "ztunnel").await;
    let before = proxy
        .until("both are told", PATIENCE, |known| {
            known.resources.contains_key(&told("goes"))
        })
        .await
        .unwrap();
    ground.server.halt().unwrap();
    until("control notices", PATIENCE, || async {
        control.metric(&broken_watches("Service")).await
    })
    .await
    .unwrap();
    assert!(control.ready().await.is_ok(), "what is known is served on");
    ground.server.resume().await.unwrap();
    ground.delete(&service("goes")).await;
    ground.apply(&service("comes")).await;
    let after = proxy
        .until("the changes are told", PATIENCE, |known| {
            known.resources.contains_key(&told("comes"))
                && !known.resources.contains_key(&told("goes"))
        })
        .await
        .unwrap();
    let stayed = told("stays");
    assert_eq!(after.resources[&stayed], before.resources[&stayed]);
    assert_eq!(proxy.connections(), 1, "the stream outlived the API server");
    ground.apply(&policy("after")).await;
    assert_eq!(ground.condition(&policy("after")).await["status"], "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_for_a_minute_is_waited_for() {
    let mut ground = Ground::new().await;
    let mut control = ground
        .replica(
            "control",
            &[("LEASE_DURATION_SECONDS", "3"), ("RUST_LOG", "info")],
        )
        .await;
    for name in ["stays", "goes", "changes"] {
        ground.apply(&service(name)).await;
    }
    ground.apply(&policy("before")).await;
    let mut proxies = Vec::new();
    for number in 0..3 {
        let proxy = ground
            .proxy(&[&control], &format!("ztunnel-{number}"))
            .await;
        proxies.push(proxy);
    }
    let all_have =
        |name: &'static str| move |known: &Known| known.resources.contains_key(&told(name));
    for proxy in &proxies {
        let told = proxy.until("everything is told", PATIENCE, all_have("changes"));
        told.await.unwrap();
    }
    leader(&[&control]).await;
    let before: Vec<Known> = proxies
        .iter()
        .map(|one| one.known().borrow().clone())
        .collect();
    ground.server.halt().unwrap();
    let away = ground.meanwhile(async {
        let begun = Instant::now();
        // Nobody is told anything meanwhile, and nobody is left.
        while begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!control.program.has_ended(), "{}", control.program.said());
            for (proxy, before) in proxies.iter().zip(&before) {
                assert_eq!(proxy.connections(), 1, "{}", control.program.said());
                assert_eq!(proxy.known().borrow().responses, before.responses);
            }
        }
        assert!(control.ready().await.is_ok(), "what is known is served on");
        assert!(!control.leads().await, "its term ended with its lease");
    });
    away.await;
    // Once for each kind, in words, and not again and again.
    let said = control.program.said();
    let services = said.lines().filter(|line| line.contains("the watch broke"));
    let services: Vec<&str> = services
        .filter(|line| line.contains("kind=Service "))
        .collect();
    assert_eq!(services.len(), 1, "{said}");
    assert!(services[0].contains("WARN") && services[0].contains("what is known is served on"));

    ground.server.resume().await.unwrap();
    ground.delete(&service("goes")).await;
    ground.apply(&service("comes")).await;
    let mut changed = service("changes");
    changed["spec"]["ports"][0]["port"] = json!(81);
    ground.apply(&changed).await;
    for (proxy, before) in proxies.iter().zip(&before) {
        let changed = &before.resources[&told("changes")];
        let all = proxy.until("every change is told", PATIENCE, |known| {
            known.resources.contains_key(&told("comes"))
                && !known.resources.contains_key(&told("goes"))
                && known.resources[&told("changes")] != *changed
        });
        let after = all.await.unwrap();
        let stayed = told("stays");
        assert_eq!(after.resources[&stayed], before.resources[&stayed]);
        assert_eq!(proxy.connections(), 1, "the stream outlived the API server");
    }
    leader(&[&control]).await;
    ground.apply(&policy("after")).await;
    assert_eq!(ground.condition(&policy("after")).await["status"], "True");
    let said = control.program.said();
    assert!(
        said.contains("the watch is taken up again kind=Service"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_server_has_forgotten_loses_no_deletion() {
    let mut ground = Ground::new().await;
    let control = ground.replica("control", &[]).await;
    for name in ["stays", "goes"] {
        ground.apply(&service(name)).await;
    }
    let proxy = ground.proxy(&[&control], "ztunnel").await;
    proxy
        .until("both are told", PATIENCE, |known| {
            known.resources.contains_key(&told("goes"))
        })
        .await
        .unwrap();
    // Control stands still while its connections end and the changes are made, so that nothing of them is
    // on its way to it, and its version is old when it asks again, and answered 410 Gone.
    control.program.signal(Signal::SIGSTOP).unwrap();
    ground.server.halt().unwrap();
    ground.server.resume().await.unwrap();
    ground.delete(&service("goes")).await;
    ground.apply(&service("comes")).await;
    ground.server.halt().unwrap();
    ground.server.forget().unwrap();
    ground.server.resume().await.unwrap();
    control.program.signal(Signal::SIGCONT).unwrap();
    proxy
        .until("the changes are told", PATIENCE, |known| {
            known.resources.contains_key(&told("comes"))
                && !known.resources.contains_key(&told("goes"))
                && known.resources.contains_key(&told("stays"))
        })
        .await
        .unwrap();
    until("it says that the watch broke", PATIENCE, || async {
        let said = control.program.said();
        said.contains("the watch broke; it is taken up again")
            .then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_ends_the_term_and_nothing_else() {
    let ground = Ground::new().await;
    let control = ground
        .replica("control", &[("LEASE_DURATION_SECONDS", "3")])
        .await;
    let proxy = ground.proxy(&[&control], "ztunnel").await;
    leader(&[&control]).await;
    let server = ground.server.process().unwrap();
    server.signal(Signal::SIGSTOP).unwrap();
    until("the leader gives up", PATIENCE, || async {
        (!control.leads().await).then_some(())
    })
    .await
    .unwrap();
    server.signal(Signal::SIGCONT).unwrap();
    leader(&[&control]).await;
    ground.apply(&service("after")).await;
    ground.apply(&policy("after")).await;
    proxy
        .until("the change is told", PATIENCE, |known| {
            known.resources.contains_key(&told("after"))
        })
        .await
        .unwrap();
    assert_eq!(ground.condition(&policy("after")).await["status"], "True");
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_come_later_are_taken_up() {
    let ground = Ground::bare().await;
    let control = ground.replica("control", &[]).await;
    let said = control.program.said();
    assert!(said.contains("not installed in this cluster"), "{said}");
    install::one_definition(&ground.client, "authorizationpolicies.yaml")
        .await
        .unwrap();
    ground.apply(&policy("first")).await;
    assert_eq!(ground.condition(&policy("first")).await["status"], "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_converted_stays_as_it_was_and_stops_nothing_else() {
    let ground = Ground::new().await;
    let control = ground.replica("control", &[]).await;
    let proxy = ground.proxy(&[&control], "ztunnel").await;
    ground.apply(&policy("before")).await;
    assert_eq!(ground.condition(&policy("before")).await["status"], "True");
    // Objects are stored in another version than the one asked for, and who converts is not there.
    let (definitions, name) = install::api(
        &ground.client,
        &json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "authorizationpolicies.security.istio.io"},
        }),
    )
    .unwrap();
    let mut definition = definitions.get(&name).await.unwrap();
    let versions = definition.data["spec"]["versions"]
        .as_array()
        .unwrap()
        .clone();
    let turned = versions.into_iter().map(|mut version| {
        version["storage"] = json!(version["name"] != "v1");
        version
    });
    definition.data["spec"]["versions"] = turned.collect();
    definition.data["spec"]["conversion"] = json!({
        "strategy": "Webhook",
        "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:1/convert"},
        },
    });
    definitions
        .replace(&name, &Default::default(), &definition)
        .await
        .unwrap();
    let watches = broken_watches("AuthorizationPolicy");
    until("the watch breaks", PATIENCE, || async {
        control.metric(&watches).await.filter(|count| *count > 0.0)
    })
    .await
    .unwrap();
    ground.apply(&service("after")).await;
    proxy
        .until("the change is told", PATIENCE, |known| {
            known.resources.contains_key(&told("after"))
        })
        .await
        .unwrap();
    let dump = control.monitor("/debug/config_dump").await.unwrap();
    assert!(dump.contains("default/before"), "the policy stays: {dump}");
}
