//! The webhook, asked by the real API server over TLS.

use plane::install;
use plane::until::until;
use serde_json::{Value, json};

use super::ground::*;

const NAME: &str = "culvert-control-istio-system";

/// The chart's configuration, with the replica's own address in place of the service, which nobody
/// here would route.
fn configuration(address: std::net::SocketAddr) -> Value {
    let objects = install::rendered(&[
        "control.webhook.enabled=true",
        "control.webhook.failurePolicy=Fail",
    ])
    .unwrap();
    let mut found = objects
        .into_iter()
        .find(|object| object["kind"] == "ValidatingWebhookConfiguration")
        .unwrap();
    assert_eq!(found["metadata"]["name"], NAME);
    found["webhooks"][0]["clientConfig"] = json!({"url": format!("https://{address}/validate")});
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_object_is_refused_by_name_field_and_reason() {
    let ground = Ground::new().await;
    install::rights(&ground.client, &["control.webhook.enabled=true"])
        .await
        .unwrap();
    let environment = [("WEBHOOK_CONFIGURATION", NAME)];
    let control = ground.replica("control", &environment).await;
    let configured = configuration(control.webhook);
    ground.apply(&configured).await;
    // Until it is told the root, the API server refuses everything: it does not reach the webhook.
    until(
        "the API server trusts the webhook",
        PATIENCE * 2,
        || async { install::apply(&ground.client, &policy("right")).await.ok() },
    )
    .await
    .unwrap();
    let mut wrong = policy("wrong");
    wrong["spec"] = json!({"rules": [{"from": [{"source": {"ipBlocks": ["nonsense"]}}]}]});
    let refused = install::apply(&ground.client, &wrong).await.unwrap_err();
    let refused = format!("{refused:#}");
    for word in ["AuthorizationPolicy default/wrong", "rules[0]", "nonsense"] {
        assert!(refused.contains(word), "{word} is not in {refused}");
    }
    // The same words as the status of one that came in before there was a webhook.
    ground.delete(&configured).await;
    until("nobody is asked any more", PATIENCE, || async {
        install::apply(&ground.client, &wrong).await.ok()
    })
    .await
    .unwrap();
    let condition = ground.condition(&wrong).await;
    let said = condition["message"].as_str().unwrap();
    let reason = said.split(". ").next().unwrap();
    assert!(refused.contains(reason), "{refused} and {said}");
}
