//! The subscription against a control plane that follows the protocol to the letter.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A control plane that follows the protocol: it knows what each client holds, sends what differs,
/// and names what has gone.
#[derive(Default)]
struct Server {
    /// Version and whether the resource is good, by name.
    resources: BTreeMap<String, (u32, bool)>,
    /// Version the client was last sent, or named when it came.
    client: BTreeMap<String, String>,
    nonce: u32,
}

impl Server {
    fn welcome(&mut self, request: &DeltaDiscoveryRequest) {
        self.client = request
            .initial_resource_versions
            .clone()
            .into_iter()
            .collect();
    }

    fn push(&mut self) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        let mut sent = Vec::new();
        for (name, (version, good)) in &self.resources {
            let version = version.to_string();
            if self.client.get(name) != Some(&version) {
                let make = if *good { workload } else { bad_workload };
                sent.push(make(name, &version));
                self.client.insert(name.clone(), version);
            }
        }
        let known: BTreeSet<_> = self.client.keys().cloned().collect();
        let gone: Vec<_> = known
            .into_iter()
            .filter(|name| !self.resources.contains_key(name))
            .collect();
        self.client.retain(|name, _| !gone.contains(name));
        let gone: Vec<_> = gone.iter().map(String::as_str).collect();
        response(Kind::Address, &self.nonce.to_string(), sent, &gone)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set { name: u8, good: bool },
    Remove(u8),
    Push,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u8, prop::bool::weighted(0.7)).prop_map(|(name, good)| Step::Set { name, good }),
        2 => (0..5_u8).prop_map(Step::Remove),
        3 => Just(Step::Push),
        2 => Just(Step::Reconnect),
    ]
}

proptest! {
    /// Over any course of changes, bad versions and disconnects, the world holds of each resource
    /// the last good version that was sent, and nothing that has gone.
    #[test]
    fn the_world_follows_the_server(steps in prop::collection::vec(step(), 0..50)) {
        let (mut subscription, mut world) = (subscription(Kind::Address), World::new("n1"));
        let mut server = Server::default();
        let mut last_good: BTreeMap<String, String> = BTreeMap::new();
        let mut version = 0;
        for step in steps.into_iter().chain([Step::Reconnect, Step::Push]) {
            match step {
                Step::Set { name, good } => {
                    version += 1;
                    server.resources.insert(format!("w{name}"), (version, good));
                }
                Step::Remove(name) => {
                    server.resources.remove(&format!("w{name}"));
                }
                Step::Reconnect => server.welcome(&subscription.open().unwrap()),
                Step::Push => {
                    let response = server.push();
                    for sent in &response.resources {
                        if server.resources[&sent.name].1 {
                            last_good.insert(sent.name.clone(), sent.version.clone());
                        }
                    }
                    for name in &response.removed_resources {
                        last_good.remove(name);
                    }
                    let bad = response.resources.iter().any(|r| !server.resources[&r.name].1);
                    let answer = take(&mut subscription, &mut world, response);
                    prop_assert_eq!(answer.error_detail.is_some(), bad);
                    prop_assert_eq!(answer.response_nonce, server.nonce.to_string());
                }
            }
        }
        let held: BTreeMap<_, _> =
            world.workloads().map(|w| (w.uid.to_string(), w.node.to_string())).collect();
        prop_assert_eq!(&held, &last_good);
        let names: BTreeSet<_> = server.resources.keys().collect();
        prop_assert!(held.keys().all(|name| names.contains(name)), "something outlived its removal");
    }
}
