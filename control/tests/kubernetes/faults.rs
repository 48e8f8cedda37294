//! What the API server may do to control: stop, hang, come back having forgotten its watches, know
//! a kind only later, fail to convert what it has.

use nix::sys::signal::Signal;
use plane::install;
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
    // Control stands still, so that its version is old when it asks again, and answered 410 Gone.
    control.program.signal(Signal::SIGSTOP).unwrap();
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
    let said = control.program.said();
    assert!(
        said.contains("the watch broke; it is taken up again"),
        "{said}"
    );
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
