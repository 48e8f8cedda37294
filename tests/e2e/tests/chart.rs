//! The chart, rendered by the real helm: what it asks for and what it refuses. No cluster needed.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cluster::{Tool, Tools};
use e2e::process::{self, Ended};
use e2e::stage::root;
use serde_json::Value;

fn helm(words: &[&str]) -> Ended {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    let helm = HELM.get_or_init(|| {
        Tools::from_env()
            .get(Tool::Helm, &|line| println!("{line}"))
            .unwrap()
    });
    process::run(
        Command::new(helm).args(words).current_dir(root()),
        Duration::from_secs(60),
    )
    .unwrap()
}

/// The objects that the chart renders to with these values.
fn rendered(values: &[&str]) -> Vec<Value> {
    let mut words = vec![
        "template",
        "culvert",
        "charts/culvert",
        "--namespace",
        "istio-system",
    ];
    for value in values {
        words.extend(["--set", value]);
    }
    let text = helm(&words).well("helm template").unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .filter(|object: &Value| !object.is_null())
        .collect()
}

fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("the chart has no {kind} {name}"))
}

fn environment<'a>(objects: &'a [Value], variable: &str) -> &'a Value {
    let container =
        &object(objects, "DaemonSet", "ztunnel")["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().unwrap();
    &variables
        .iter()
        .find(|one| one["name"] == variable)
        .unwrap()["value"]
}

#[test]
fn helm_finds_nothing_wrong_with_it() {
    let linted = helm(&["lint", "--strict", "charts/culvert"]);
    assert_eq!(linted.code, Some(0), "{}{}", linted.stdout, linted.stderr);
}

#[test]
fn ztunnel_is_not_privileged_and_has_three_capabilities() {
    let objects = rendered(&[]);
    let pod = &object(&objects, "DaemonSet", "ztunnel")["spec"]["template"]["spec"];
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[shared].is_null(), "{shared}");
    }
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(
        security["capabilities"]["add"],
        serde_json::json!(["NET_ADMIN", "SYS_ADMIN", "BPF"])
    );
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let writable: Vec<&str> = mounts
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .map(|mount| mount["name"].as_str().unwrap())
        .collect();
    assert_eq!(writable, ["cgroup2", "bpffs", "proc-sys-net"]);
}

#[test]
fn ztunnel_can_change_no_pod_and_read_no_secret() {
    let objects = rendered(&[]);
    for object in objects
        .iter()
        .filter(|object| object["metadata"]["labels"]["app"] == "ztunnel")
    {
        for rule in object["rules"].as_array().into_iter().flatten() {
            let words = |field: &str| -> Vec<String> {
                let list = rule[field].as_array().into_iter().flatten();
                list.filter_map(|word| word.as_str().map(str::to_owned))
                    .collect()
            };
            assert!(
                !words("resources")
                    .iter()
                    .any(|one| one == "secrets" || one == "*"),
                "{rule}"
            );
            assert!(!words("verbs").iter().any(|one| one == "*"), "{rule}");
            if words("resources").iter().any(|one| one == "pods") {
                let reads = ["get", "list", "watch"];
                assert!(
                    words("verbs")
                        .iter()
                        .all(|verb| reads.contains(&verb.as_str())),
                    "{rule}"
                );
            }
        }
    }
}

#[test]
fn control_is_not_root() {
    let objects = rendered(&[]);
    let pod = &object(&objects, "Deployment", "culvert-control")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["containers"][0]["securityContext"]["capabilities"]["drop"],
        serde_json::json!(["ALL"])
    );
    assert_eq!(
        environment(&objects, "XDS_ADDRESS"),
        "https://culvert-control.istio-system.svc:15012"
    );
}

#[test]
fn whatever_control_watches_of_other_apis_the_chart_defines() {
    let objects = rendered(&[]);
    let role = object(&objects, "ClusterRole", "culvert-control-istio-system");
    let words = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let mut looked_at = 0;
    for rule in role["rules"].as_array().unwrap() {
        let of_others =
            |group: &String| group.ends_with(".istio.io") || group == "gateway.networking.k8s.io";
        let watched = words(&rule["verbs"]).iter().any(|verb| verb == "watch");
        for group in words(&rule["apiGroups"])
            .iter()
            .filter(|group| watched && of_others(group))
        {
            for plural in words(&rule["resources"]) {
                let file = format!("charts/culvert/crds/{plural}.yaml");
                let text = std::fs::read_to_string(root().join(&file)).expect(&file);
                let defined: Value = serde_yaml_ng::from_str(&text).expect(&file);
                assert_eq!(defined["metadata"]["name"], format!("{plural}.{group}"));
                looked_at += 1;
            }
        }
    }
    assert!(looked_at >= 10, "{looked_at}");
}

#[test]
fn several_replicas_are_spread_and_one_at_a_time_is_taken_away() {
    let budget = |objects: &[Value]| {
        let mut budgets = objects
            .iter()
            .filter(|object| object["kind"] == "PodDisruptionBudget");
        budgets.next().cloned()
    };
    assert_eq!(
        budget(&rendered(&[])),
        None,
        "one replica could never be drained"
    );
    let objects = rendered(&["control.replicas=3"]);
    let deployment = object(&objects, "Deployment", "culvert-control");
    assert_eq!(deployment["spec"]["replicas"], 3);
    let selector = &deployment["spec"]["selector"];
    let budget = budget(&objects).unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(&budget["spec"]["selector"], selector);
    let affinity = &deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let preferred = &affinity["preferredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(
        preferred["podAffinityTerm"]["topologyKey"],
        "kubernetes.io/hostname"
    );
    assert_eq!(&preferred["podAffinityTerm"]["labelSelector"], selector);
}

#[test]
fn without_control_only_the_data_plane_is_there_and_asks_istiod() {
    let objects = rendered(&["control.enabled=false"]);
    let of_control = |object: &&Value| {
        object["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.contains("control"))
    };
    assert_eq!(objects.iter().find(of_control), None);
    assert_eq!(
        environment(&objects, "XDS_ADDRESS"),
        "https://istiod.istio-system.svc:15012"
    );
    let named = rendered(&[
        "control.enabled=false",
        "xdsAddress=https://istiod-canary.istio:15012",
    ]);
    assert_eq!(
        environment(&named, "XDS_ADDRESS"),
        "https://istiod-canary.istio:15012"
    );
}

#[test]
fn values_reach_what_they_name() {
    let objects = rendered(&[
        "image.registry=registry.example/culvert",
        "image.tag=1.2.3",
        "trustDomain=example.org",
        "log.level=debug",
        "log.format=plain",
        "node.cgroup2=/sys/fs/cgroup/unified",
        "node.criSocket=/var/run/crio/crio.sock",
        "ztunnel.resources.requests.cpu=250m",
    ]);
    let pod = &object(&objects, "DaemonSet", "ztunnel")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/culvert/ztunnel:1.2.3");
    assert_eq!(container["resources"]["requests"]["cpu"], "250m");
    assert_eq!(environment(&objects, "TRUST_DOMAIN"), "example.org");
    assert_eq!(environment(&objects, "RUST_LOG"), "debug");
    assert_eq!(environment(&objects, "LOG_FORMAT"), "plain");
    assert_eq!(environment(&objects, "CRI_SOCKET"), "/host/cri/crio.sock");
    let paths: Vec<&str> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| volume["hostPath"]["path"].as_str())
        .collect();
    assert!(
        paths.contains(&"/sys/fs/cgroup/unified") && paths.contains(&"/var/run/crio"),
        "{paths:?}"
    );
}

#[test]
fn a_mesh_configuration_is_for_our_own_control_plane() {
    let named = "meshConfig.extensionProviders[0].name=ask";
    let kind = "meshConfig.extensionProviders[0].envoyExtAuthzGrpc";
    let (service, port) = (format!("{kind}.service=a.b"), format!("{kind}.port=1"));
    let objects = rendered(&[named, &service, &port]);
    let map = object(&objects, "ConfigMap", "istio");
    assert_eq!(map["metadata"]["namespace"], "istio-system");
    let text = map["data"]["mesh"].as_str().unwrap();
    let mesh: Value = serde_yaml_ng::from_str(text).unwrap();
    assert_eq!(mesh["extensionProviders"][0]["name"], "ask");
    let all = [named, &service, &port, "control.enabled=false"];
    let set = all.iter().flat_map(|value| ["--set", value]);
    let words: Vec<&str> = ["template", "culvert", "charts/culvert"]
        .into_iter()
        .chain(set)
        .collect();
    let refused = helm(&words);
    assert!(
        refused.stderr.contains("give it to istiod"),
        "{}",
        refused.stderr
    );
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (value, named) in [
        ("log.format=xml", "format"),
        ("ztunnel.podSource=docker", "podSource"),
        ("xdsAddress=istiod:15012", "xdsAddress"),
        ("node.cgroup2=relative", "cgroup2"),
        ("contol.enabled=false", "contol"),
        ("meshConfig.trustDomain=here", "trustDomain"),
        (
            "meshConfig.extensionProviders[0].name=A_1",
            "/meshConfig/extensionProviders/0",
        ),
        (
            "meshConfig.extensionProviders[0].envoyExtAuthzGrpc.failopen=true",
            "failopen",
        ),
        (
            "ztunnel.terminationGracePeriodSeconds=0",
            "terminationGracePeriodSeconds",
        ),
    ] {
        let refused = helm(&["template", "culvert", "charts/culvert", "--set", value]);
        assert_ne!(refused.code, Some(0), "{value} was taken");
        assert!(
            refused.stderr.contains(named),
            "{value}: {}",
            refused.stderr
        );
    }
}
