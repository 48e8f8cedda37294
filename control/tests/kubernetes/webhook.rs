//! The webhook, asked by the real API server over TLS.

use std::collections::BTreeSet;

use control::admission::verdict::KINDS;
use control::objects::Kind;
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
    let wrong = [
        (
            wrong,
            ["AuthorizationPolicy default/wrong", "rules[0]", "nonsense"],
        ),
        (
            entry(
                "ServiceEntry",
                json!({"hosts": ["a.test"], "resolution": "STATIC", "endpoints": [{"address": "b.test"}]}),
            ),
            ["ServiceEntry default/wrong", "endpoints[0]", "b.test"],
        ),
        (
            entry(
                "WorkloadEntry",
                json!({"address": "10.0.0.1", "ports": {"http": 70000}}),
            ),
            ["WorkloadEntry default/wrong", "ports", "70000"],
        ),
    ];
    let mut refusals = Vec::new();
    for (object, words) in &wrong {
        let refused = install::apply(&ground.client, object).await.unwrap_err();
        let refused = format!("{refused:#}");
        for word in words {
            assert!(refused.contains(word), "{word} is not in {refused}");
        }
        refusals.push(refused);
    }
    // The same words as the status of one that came in before there was a webhook.
    ground.delete(&configured).await;
    for ((object, _), refused) in wrong.iter().zip(refusals) {
        until("nobody is asked any more", PATIENCE, || async {
            install::apply(&ground.client, object).await.ok()
        })
        .await
        .unwrap();
        let condition = ground.condition(object).await;
        let said = condition["message"].as_str().unwrap();
        let reason = said.split(". ").next().unwrap();
        assert!(refused.contains(reason), "{refused} and {said}");
    }
}

fn entry(kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": kind,
        "metadata": {"name": "wrong", "namespace": "default"}, "spec": spec,
    })
}

/// The resources of a rule list, as `group/plural`.
fn resources(rules: &Value) -> BTreeSet<String> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let rules = rules.as_array().unwrap().iter();
    let all = rules.flat_map(|rule| {
        let groups = texts(&rule["apiGroups"]);
        let resources = texts(&rule["resources"]);
        groups.into_iter().flat_map(move |group| {
            let of_group = resources.iter().map(move |one| format!("{group}/{one}"));
            of_group.collect::<Vec<_>>()
        })
    });
    all.collect()
}

#[test]
fn the_chart_has_every_kind_reviewed_that_control_looks_at() {
    let reviewed = resources(&configuration(([127, 0, 0, 1], 1).into())["webhooks"][0]["rules"]);
    let plural = |kind: Kind| match kind.name().to_lowercase() {
        name if name.ends_with('y') && !name.ends_with("ay") => {
            format!("{}ies", &name[..name.len() - 1])
        }
        name => format!("{name}s"),
    };
    let looked_at = KINDS.map(|kind| format!("{}/{}", kind.group().0, plural(kind)));
    assert_eq!(reviewed, BTreeSet::from(looked_at));
}
