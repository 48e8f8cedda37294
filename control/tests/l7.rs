//! What the real istiod sent a waypoint for a set of objects, against what control makes of them.
//!
//! The objects and istiod's answers are the waypoint's own fixtures (`waypoint/tests/fixtures/istiod`,
//! where it is written how they were recorded). Both sides are brought into one form: JSON by Envoy's
//! descriptors, orders that mean nothing sorted. What is different on purpose, or not made by control,
//! is in `l7/accepted-differences.yaml`, each with its reason; a line that nothing needs is an error.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is the report.

#[path = "corpus/difference.rs"]
mod difference;
#[path = "corpus/form.rs"]
mod form;
#[path = "l7/scenario.rs"]
mod scenario;

use std::collections::BTreeSet;

use serde::Deserialize;

/// A difference that is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    /// The scenario, or `*`.
    scenario: String,
    /// The beginning of the resource's name.
    resource: String,
    /// A part of the path.
    path: String,
    /// Why.
    #[allow(dead_code)] // For people.
    reason: String,
}

#[test]
fn waypoints_are_told_what_istiod_tells_them() {
    let accepted: Vec<Accepted> =
        serde_yaml_ng::from_str(include_str!("l7/accepted-differences.yaml")).unwrap();
    let (mut needed, mut unexpected) = (BTreeSet::new(), Vec::new());
    let (mut compared, mut same) = (0, 0);
    for name in scenario::NAMES {
        let (ours, istiods) = (scenario::ours(name), scenario::istiods(name));
        let names: BTreeSet<&String> = ours.keys().chain(istiods.keys()).collect();
        for resource in names {
            compared += 1;
            let found = difference::between(istiods.get(resource), ours.get(resource));
            same += usize::from(found.is_empty());
            for difference in found {
                let entry = accepted.iter().position(|entry| {
                    (entry.scenario == "*" || entry.scenario == *name)
                        && resource.starts_with(&entry.resource)
                        && difference.text().contains(&entry.path)
                });
                match entry {
                    Some(entry) => {
                        needed.insert(entry);
                    }
                    None => unexpected.push(format!("{name} {resource}\n    {difference}")),
                }
            }
        }
    }
    println!("{compared} resources compared, {same} the same");
    let shown: Vec<&str> = unexpected.iter().take(60).map(String::as_str).collect();
    assert!(
        unexpected.is_empty(),
        "{} differences:\n{}",
        unexpected.len(),
        shown.join("\n")
    );
    let unneeded = accepted
        .iter()
        .enumerate()
        .filter(|(number, _)| !needed.contains(number));
    let unneeded: Vec<_> = unneeded.map(|(_, entry)| entry).collect();
    assert!(unneeded.is_empty(), "no longer needed: {unneeded:#?}");
}

#[test]
fn endpoints_of_entries_are_told_as_istiod_tells_them() {
    let (istiods, ours) = scenario::entries("external");
    assert_eq!(istiods.len(), 10);
    for (theirs, ours) in istiods.iter().zip(&ours) {
        let mut theirs = theirs.clone();
        theirs
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        assert_eq!(theirs, *ours);
    }
    assert_eq!(ours.len(), istiods.len());
}
