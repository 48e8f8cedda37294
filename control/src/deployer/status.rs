//! What a waypoint's Gateway says of itself: conditions, address, listeners.
//!
//! The address appears with the first ready pod and stays: who attaches to a waypoint must not lose
//! it, and with it the policies that it enforces, because its pods are being replaced.

use serde_json::{Value, json};

use super::Plan;
use super::manifest::Names;

/// What became of the last attempt.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Everything is applied.
    Applied,
    /// The parameters can't be used: what was made before stays.
    BadParameters(&'a str),
    /// Something of the same name belongs to somebody else.
    Occupied(&'a str),
}

/// `status`, to be applied; `None` when it says so already.
#[must_use]
pub fn status(plan: &Plan, outcome: Outcome<'_>, domain: &str, now: &str) -> Option<Value> {
    let gateway = &plan.gateway;
    let (key, generation) = (&gateway.source.key, gateway.source.generation);
    let host = format!(
        "{}.{}.svc.{domain}",
        Names::of(gateway).deployment,
        key.namespace
    );
    let assigned = plan.ready || !gateway.addresses.is_empty();
    let accepted = match outcome {
        Outcome::BadParameters(why) => ("False", "InvalidParameters", why.to_owned()),
        Outcome::Applied | Outcome::Occupied(_) => {
            let fields = gateway.passed_over.join(", ");
            let message = match fields.as_str() {
                "" => "Resource accepted".to_owned(),
                fields => format!(
                    "Resource accepted; passed over, because it is not known here: {fields}"
                ),
            };
            ("True", "Accepted", message)
        }
    };
    let programmed = match outcome {
        Outcome::Occupied(what) => ("False", "Invalid", what.to_owned()),
        _ if assigned => (
            "True",
            "Programmed",
            format!("Resource programmed, assigned to service(s) {host}:15008"),
        ),
        _ => (
            "False",
            "AddressNotAssigned",
            "No pod of the waypoint is ready yet".to_owned(),
        ),
    };
    let resolved = match outcome {
        Outcome::BadParameters(why) => ("False", "InvalidParameters", why.to_owned()),
        _ => ("True", "ResolvedRefs", "All references resolved".to_owned()),
    };
    let spec = gateway.spec.as_ref().ok();
    let listeners = spec
        .into_iter()
        .flat_map(|spec| &spec.listeners)
        .map(|listener| {
            let former = gateway
                .listeners_status
                .iter()
                .find(|known| known["name"] == *listener.name);
            let former = former
                .and_then(|known| known["conditions"].as_array())
                .map_or(&[][..], Vec::as_slice);
            let fine = |kind, reason, message: &str| {
                condition(
                    former,
                    kind,
                    &("True", reason, message.to_owned()),
                    generation,
                    now,
                )
            };
            let conflicted = ("False", "NoConflicts", "No errors found".to_owned());
            json!({
                "name": listener.name,
                "attachedRoutes": 0,
                "supportedKinds": [],
                "conditions": [
                    fine("Accepted", "Accepted", "No errors found"),
                    condition(former, "Conflicted", &conflicted, generation, now),
                    fine("Programmed", "Programmed", "No errors found"),
                    fine("ResolvedRefs", "ResolvedRefs", "No errors found"),
                ],
            })
        });
    let listeners: Vec<Value> = listeners.collect();
    let known = &gateway.source.conditions;
    let conditions = vec![
        condition(known, "Accepted", &accepted, generation, now),
        condition(known, "Programmed", &programmed, generation, now),
        condition(known, "ResolvedRefs", &resolved, generation, now),
    ];
    let said = conditions.iter().all(|ours| known.contains(ours))
        && listeners == gateway.listeners_status
        && assigned != gateway.addresses.is_empty();
    if said {
        return None;
    }
    let mut status = json!({"conditions": conditions, "listeners": listeners});
    if assigned {
        status["addresses"] = json!([{"type": "Hostname", "value": host}]);
    }
    Some(status)
}

/// The time changes with the status only.
fn condition(
    known: &[Value],
    kind: &str,
    (status, reason, message): &(&str, &str, String),
    generation: i64,
    now: &str,
) -> Value {
    let former = known
        .iter()
        .find(|known| known["type"] == kind && known["status"] == *status);
    let since = former
        .and_then(|known| known["lastTransitionTime"].as_str())
        .unwrap_or(now);
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Gateway;

    fn plan(ready: bool, status: &Value) -> Plan {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "w", "namespace": "shop", "uid": "u", "generation": 2},
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
            "status": status,
        });
        Plan {
            gateway: Gateway::from(
                &serde_json::from_value::<kube::core::DynamicObject>(object).unwrap(),
            ),
            ready,
        }
    }

    fn said(status: &Value) -> Vec<String> {
        let all = status["conditions"].as_array().unwrap().iter();
        all.map(|c| {
            format!(
                "{} {} {}",
                c["type"].as_str().unwrap(),
                c["status"].as_str().unwrap(),
                c["reason"].as_str().unwrap()
            )
        })
        .collect()
    }

    #[test]
    fn the_address_comes_with_the_first_ready_pod_and_stays() {
        let before = status(
            &plan(false, &json!({})),
            Outcome::Applied,
            "cluster.local",
            "T1",
        )
        .unwrap();
        assert_eq!(before.get("addresses"), None);
        assert_eq!(
            said(&before),
            [
                "Accepted True Accepted",
                "Programmed False AddressNotAssigned",
                "ResolvedRefs True ResolvedRefs"
            ]
        );
        let ready = status(
            &plan(true, &before),
            Outcome::Applied,
            "cluster.local",
            "T2",
        )
        .unwrap();
        assert_eq!(
            ready["addresses"],
            json!([{"type": "Hostname", "value": "w.shop.svc.cluster.local"}])
        );
        assert_eq!(ready["conditions"][0]["lastTransitionTime"], "T1");
        assert_eq!(ready["conditions"][1]["lastTransitionTime"], "T2");
        assert_eq!(ready["listeners"][0]["name"], "mesh");
        assert_eq!(
            status(
                &plan(false, &ready),
                Outcome::Applied,
                "cluster.local",
                "T3"
            ),
            None,
            "nothing new"
        );
    }

    #[test]
    fn fields_that_nobody_reads_are_named() {
        let mut plan = plan(true, &json!({}));
        plan.gateway.passed_over = vec!["listeners[0].prot".to_owned()];
        let status = status(&plan, Outcome::Applied, "cluster.local", "T").unwrap();
        assert_eq!(said(&status)[0], "Accepted True Accepted");
        assert_eq!(
            status["conditions"][0]["message"],
            "Resource accepted; passed over, because it is not known here: listeners[0].prot"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let bad = status(
            &plan(true, &json!({})),
            Outcome::BadParameters("ConfigMap shop/c does not exist"),
            "cluster.local",
            "T",
        )
        .unwrap();
        assert_eq!(said(&bad)[0], "Accepted False InvalidParameters");
        assert_eq!(
            bad["conditions"][2]["message"],
            "ConfigMap shop/c does not exist"
        );
        let taken = status(
            &plan(true, &json!({})),
            Outcome::Occupied("Deployment w is not its own"),
            "cluster.local",
            "T",
        )
        .unwrap();
        assert_eq!(said(&taken)[1], "Programmed False Invalid");
    }
}
