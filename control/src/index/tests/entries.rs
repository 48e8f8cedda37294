//! ServiceEntries: whose a host is, which addresses it has, and who is recomputed.

use mesh::proto::workload::{Address, Service as WireService, Workload, address};
use prost::Message;
use serde_json::{Value, json};

use super::super::*;
use super::object;

fn entry(namespace: &str, name: &str, age: u8, spec: Value) -> Change {
    object(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", 60 - age)},
        "spec": spec,
    }))
}

fn external(host: &str) -> Value {
    json!({"hosts": [host], "resolution": "DNS", "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]})
}

/// What node proxies are told anew: services and workloads by name, `None` for one that is gone.
#[derive(Default)]
struct Told {
    services: BTreeMap<String, Option<WireService>>,
    workloads: BTreeMap<String, Option<Workload>>,
}

fn told(index: &mut Index) -> Told {
    let mut told = Told::default();
    let updates = index.recompute().into_iter();
    for update in updates.filter(|update| update.kind == ResourceType::Address) {
        let name = update.name.to_string();
        let address = update.resource.map(|resource| {
            let address = Address::decode(resource.value.as_ref()).unwrap();
            address.r#type.unwrap()
        });
        match address {
            Some(address::Type::Service(service)) => {
                told.services.insert(name, Some(service));
            }
            Some(address::Type::Workload(workload)) => {
                told.workloads.insert(name, Some(workload));
            }
            None if name.starts_with("Kubernetes/") => {
                told.workloads.insert(name, None);
            }
            None => {
                told.services.insert(name, None);
            }
        }
    }
    told
}

fn addresses(index: &mut Index) -> Vec<(String, IpAddr)> {
    let wishes = index.take_wishes().into_iter();
    wishes.flat_map(|wish| wish.addresses).collect()
}

#[test]
fn a_host_without_an_address_is_given_one_that_its_status_keeps() {
    let mut index = Index::new(Mesh::default());
    index.apply(entry("shop", "e", 1, external("e.test")));
    let first = told(&mut index);
    let service = first.services["shop/e.test"].clone().unwrap();
    assert_eq!((service.name.as_str(), service.canonical), ("e", true));
    assert_eq!(service.addresses.len(), 2);
    assert_eq!(service.addresses[0].address[..2], [240, 240]);
    let workload = &first.workloads["Kubernetes/networking.istio.io/ServiceEntry/shop/e/e.test"];
    assert_eq!(workload.clone().unwrap().hostname, "e.test");
    let wished = addresses(&mut index);
    let mut written = external("e.test");
    written["location"] = json!("MESH_EXTERNAL");
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "e", "namespace": "shop"}, "spec": written,
        "status": {"addresses": [{"host": "e.test", "value": "240.240.9.9"}]},
    });
    assert_eq!(wished.len(), 2);
    // What somebody has written there holds, and is not written again.
    index.apply(super::object(object));
    let again = told(&mut index).services["shop/e.test"].clone().unwrap();
    assert_eq!(again.addresses[0].address, [240, 240, 9, 9]);
    assert_eq!(again.addresses.len(), 1);
    assert_eq!(addresses(&mut index), []);
    index.apply(Change::Removed(Kind::ServiceEntry, Key::new("shop", "e")));
    let gone = told(&mut index);
    assert_eq!(gone.services["shop/e.test"], None);
    assert!(gone.workloads.values().all(Option::is_none) && gone.workloads.len() == 1);
}

#[test]
fn the_oldest_entry_has_the_host_and_a_service_of_kubernetes_before_all() {
    let mut index = Index::new(Mesh::default());
    let host = "web.shop.svc.cluster.local";
    index.apply(entry("shop", "young", 1, external(host)));
    index.apply(entry("bank", "other", 2, external(host)));
    let name = |told: &Told| {
        told.services["shop/web.shop.svc.cluster.local"]
            .clone()
            .unwrap()
            .name
    };
    let canonical = |told: &Told, of: &str| {
        let found = told.services[&format!("{of}/{host}")].clone();
        found.unwrap().canonical
    };
    let two = told(&mut index);
    assert!(canonical(&two, "bank") && !canonical(&two, "shop"));
    index.apply(entry("shop", "old", 3, external(host)));
    let three = told(&mut index);
    assert_eq!(name(&three), "old");
    assert!(canonical(&three, "shop") && !canonical(&three, "bank"));
    let loser = "Kubernetes/networking.istio.io/ServiceEntry/shop/young/web.shop.svc.cluster.local";
    assert_eq!(three.workloads[loser], None);
    index.apply(super::service("web", json!({"app": "a"})));
    let shadowed = told(&mut index);
    assert_eq!(name(&shadowed), "web");
    assert!(canonical(&shadowed, "shop") && !canonical(&shadowed, "bank"));
    index.apply(Change::Removed(Kind::Service, Key::new("shop", "web")));
    assert_eq!(name(&told(&mut index)), "old");
}

#[test]
fn pods_that_an_entry_selects_are_its_endpoints_by_the_names_of_its_ports() {
    let mut index = super::shop();
    let spec = json!({
        "hosts": ["e.test"], "resolution": "STATIC", "addresses": ["10.1.1.1", "10.2.0.0/16"], "exportTo": ["."],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 9080}],
        "workloadSelector": {"labels": {"app": "a"}},
    });
    index.apply(entry("shop", "e", 1, spec));
    let told = told(&mut index);
    let pod = told.workloads["Kubernetes//Pod/shop/a-1"].clone().unwrap();
    assert_eq!(pod.services["shop/e.test"].ports[0].target_port, 9080);
    assert!(!told.workloads.contains_key("Kubernetes//Pod/shop/b-1"));
    let service = told.services["shop/e.test"].clone().unwrap();
    let lengths: Vec<_> = service
        .addresses
        .iter()
        .map(|address| address.length)
        .collect();
    assert_eq!(lengths, [None, Some(16)]);
    assert_eq!(service.visibility, 1);
}

#[test]
fn a_workload_entry_is_an_endpoint_of_whoever_selects_it() {
    let mut index = Index::new(Mesh::default());
    let virtual_machine = |address: &str, app: &str| {
        object(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "vm", "namespace": "shop", "labels": {"app": app}},
            "spec": {"address": address, "serviceAccount": "vm", "ports": {"web": 9090}, "weight": 2},
        }))
    };
    let spec = json!({"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    index.apply(object(
        json!({"kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": spec}),
    ));
    let mut selects = external("e.test");
    selects["resolution"] = json!("STATIC");
    selects["workloadSelector"] = json!({"labels": {"app": "a"}});
    index.apply(entry("shop", "e", 1, selects));
    index.recompute();
    let uid = "Kubernetes/networking.istio.io/WorkloadEntry/shop/vm";
    let services = |index: &mut Index| -> Vec<(String, u32)> {
        let workload = told(index).workloads.remove(uid).flatten();
        let workload = workload.into_iter().flat_map(|workload| workload.services);
        let mut found: Vec<_> = workload
            .map(|(name, ports)| (name, ports.ports[0].target_port))
            .collect();
        found.sort();
        found
    };
    index.apply(virtual_machine("192.0.2.1", "a"));
    let both = [
        ("shop/a.shop.svc.cluster.local".to_owned(), 9090),
        ("shop/e.test".to_owned(), 80),
    ];
    assert_eq!(services(&mut index), both);
    index.apply(virtual_machine("192.0.2.1", "b"));
    assert_eq!(services(&mut index), []);
    // A bad version is refused, and the last good one stays.
    index.apply(virtual_machine("unix:///run/x", "a"));
    assert!(told(&mut index).workloads.is_empty());
    let wish = index.take_wishes().pop().unwrap();
    assert!(!wish.verdict.accepted && wish.verdict.message.contains("address"));
    let all = |kind| index.keys(kind).len();
    assert_eq!((all(Kind::WorkloadEntry), all(Kind::Pod)), (1, 0));
    index.apply(Change::Removed(Kind::WorkloadEntry, Key::new("shop", "vm")));
    assert_eq!(told(&mut index).workloads[uid], None);
}
