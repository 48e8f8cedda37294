//! What a route of the Gateway API says of itself: one entry for each parent that is ours.
//!
//! Other controllers' entries stay as they are, and the time of a condition changes with its status.

use serde_json::{Value, json};

use super::Verdict;
use crate::objects::gateway::CONTROLLER;
use crate::objects::gateway_route::{GatewayRoute, ParentRef};

/// `status.parents` as it shall be; `None` when it says so already, or no parent is ours.
#[must_use]
pub fn parents(
    route: &GatewayRoute,
    verdict: &Verdict,
    generation: i64,
    now: &str,
) -> Option<Vec<Value>> {
    let ours: Vec<&ParentRef> = route
        .parents
        .iter()
        .filter(|parent| parent.is_service())
        .collect();
    let (mine, mut all): (Vec<Value>, Vec<Value>) = route
        .status
        .iter()
        .cloned()
        .partition(|entry| entry["controllerName"] == CONTROLLER);
    if ours.is_empty() && mine.is_empty() {
        return None;
    }
    let made: Vec<Value> = ours
        .into_iter()
        .map(|parent| entry(parent, &mine, verdict, generation, now))
        .collect();
    if made == mine {
        return None;
    }
    all.extend(made);
    Some(all)
}

fn entry(
    parent: &ParentRef,
    known: &[Value],
    verdict: &Verdict,
    generation: i64,
    now: &str,
) -> Value {
    let reference = reference(parent);
    let known = known.iter().find(|entry| entry["parentRef"] == reference);
    let known = known
        .and_then(|entry| entry["conditions"].as_array())
        .map_or(&[][..], Vec::as_slice);
    // A reference that leads nowhere is the backend's matter; everything else is the route's.
    let of_reference = ["RefNotPermitted", "InvalidKind", "BackendNotFound"]
        .into_iter()
        .find(|reason| verdict.message.contains(&format!("{reason}:")));
    let resolved = match of_reference {
        Some(reason) => ("False", reason, verdict.message.as_str()),
        None => ("True", "ResolvedRefs", "All references resolved"),
    };
    let accepted = if verdict.accepted || of_reference.is_some() {
        ("True", "Accepted", "Route was valid")
    } else {
        ("False", "UnsupportedValue", verdict.message.as_str())
    };
    let condition = |kind: &str, (status, reason, message): (&str, &str, &str)| {
        let former = known
            .iter()
            .find(|known| known["type"] == kind && known["status"] == status);
        let since = former
            .and_then(|known| known["lastTransitionTime"].as_str())
            .unwrap_or(now);
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "observedGeneration": generation, "lastTransitionTime": since,
        })
    };
    json!({
        "parentRef": reference,
        "controllerName": CONTROLLER,
        "conditions": [condition("Accepted", accepted), condition("ResolvedRefs", resolved)],
    })
}

fn reference(parent: &ParentRef) -> Value {
    let mut reference = json!({
        "group": parent.group.as_deref().unwrap_or_default(),
        "kind": parent.kind.as_deref().unwrap_or("Service"),
        "name": parent.name,
    });
    if let Some(namespace) = &parent.namespace {
        reference["namespace"] = json!(namespace);
    }
    if let Some(section) = &parent.section_name {
        reference["sectionName"] = json!(section);
    }
    if let Some(port) = parent.port {
        reference["port"] = json!(port);
    }
    reference
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn route(status: Vec<Value>) -> GatewayRoute {
        let parent = |kind: &str| ParentRef {
            group: Some(String::new()),
            kind: Some(kind.to_owned()),
            name: "web".to_owned(),
            ..ParentRef::default()
        };
        GatewayRoute {
            parents: vec![parent("Service"), parent("Gateway")],
            status,
            ..GatewayRoute::default()
        }
    }

    #[test]
    fn our_parents_are_told_and_others_entries_stay() {
        let other = json!({"controllerName": "example.com/other", "parentRef": {"name": "gw"}});
        let first = parents(&route(vec![other.clone()]), &Verdict::accepted(), 3, "T1").unwrap();
        assert_eq!(first[0], other);
        assert_eq!(first.len(), 2, "the Gateway is not ours");
        assert_eq!(first[1]["conditions"][0]["status"], "True");
        assert_eq!(
            parents(&route(first.clone()), &Verdict::accepted(), 3, "T2"),
            None
        );
        let problem = Verdict::invalid(&BTreeSet::from([
            "BackendNotFound: service x has no port 1".to_owned(),
        ]));
        let second = parents(&route(first), &problem, 4, "T3").unwrap();
        let conditions = &second[1]["conditions"];
        assert_eq!(
            (
                &conditions[0]["status"],
                &conditions[0]["lastTransitionTime"]
            ),
            (&json!("True"), &json!("T1"))
        );
        assert_eq!(
            (&conditions[1]["status"], &conditions[1]["reason"]),
            (&json!("False"), &json!("BackendNotFound"))
        );
    }

    #[test]
    fn a_route_of_gateways_alone_is_left_alone() {
        let mut route = route(vec![]);
        route.parents.remove(0);
        assert_eq!(parents(&route, &Verdict::accepted(), 1, "T"), None);
    }
}
