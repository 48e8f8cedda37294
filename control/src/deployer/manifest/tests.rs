//! What is made of a Gateway, and under which names.

use super::*;

fn gateway(meta: Value, spec: Value) -> Gateway {
    let mut object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "w", "namespace": "shop", "uid": "u-1"},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    });
    for (part, extra) in [("metadata", meta), ("spec", spec)] {
        for (key, value) in extra.as_object().unwrap() {
            object[part][key] = value.clone();
        }
    }
    Gateway::from(&serde_json::from_value::<kube::core::DynamicObject>(object).unwrap())
}

fn settings() -> Settings {
    Settings {
        image: "culvert.local/waypoint:dev".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: vec!["s".to_owned()],
        resources: json!({"requests": {"cpu": "50m"}}),
        control: "culvert-control.culvert-system.svc:15012".to_owned(),
        domain: "cluster.local".to_owned(),
        trust_domain: "td.example".to_owned(),
        cluster: "Kubernetes".to_owned(),
        network: String::new(),
        log_level: "info".to_owned(),
        log_json: true,
    }
}

fn made(meta: Value, spec: Value) -> Vec<Value> {
    manifests(&gateway(meta, spec), &settings())
}

#[test]
fn names_are_the_gateways_or_those_of_the_older_form() {
    let names = |meta| Names::of(&gateway(meta, json!({})));
    assert_eq!(names(json!({})).deployment, "w");
    let account = json!({"annotations": {"istio.io/for-service-account": "w"}});
    assert_eq!(names(account.clone()).deployment, "w-istio-waypoint");
    assert_eq!(names(account).service_account, "w-istio-waypoint");
    let own = json!({"annotations": {NAME_OVERRIDE: "n", SERVICE_ACCOUNT: "a"}});
    assert_eq!(
        names(own),
        Names {
            deployment: "n".to_owned(),
            service_account: "a".to_owned()
        }
    );
}

#[test]
fn everything_is_owned_by_its_gateway_and_can_be_found() {
    for object in made(json!({}), json!({})) {
        assert_eq!(
            object["metadata"]["ownerReferences"][0]["uid"], "u-1",
            "{object}"
        );
        assert_eq!(
            object["metadata"]["labels"]["gateway.istio.io/managed"],
            MESH_CONTROLLER
        );
        assert_eq!(object["metadata"]["labels"][GATEWAY_NAME], "w");
        assert_eq!(object["metadata"]["namespace"], "shop");
    }
}

#[test]
fn the_pod_is_confined_and_knows_where_it_is() {
    let all = made(json!({}), json!({}));
    let pod = &all[1]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "culvert.local/waypoint:dev");
    assert_eq!(
        (&container["args"][0], &container["args"][1]),
        (&json!("proxy"), &json!("waypoint"))
    );
    let context = &container["securityContext"];
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        (&context["runAsUser"], &context["readOnlyRootFilesystem"]),
        (&json!(1337), &json!(true))
    );
    assert_eq!(
        container["readinessProbe"]["httpGet"]["path"],
        "/healthz/ready"
    );
    assert_eq!(
        pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"],
        "istio-ca"
    );
    let env = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|entry| entry["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(env("TRUST_DOMAIN"), "td.example");
    assert_eq!(
        env("PROXY_CONFIG"),
        r#"{"discoveryAddress":"culvert-control.culvert-system.svc:15012"}"#
    );
    let mounts = container["volumeMounts"].as_array().unwrap();
    let volumes: Vec<&Value> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["name"])
        .collect();
    assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])));
    assert_eq!(
        all[1]["spec"].get("replicas"),
        None,
        "scaling is the user's"
    );
    let labels = &all[1]["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["istio.io/dataplane-mode"], "none");
}

#[test]
fn each_port_is_in_the_service_once() {
    let listeners = json!({"listeners": [
        {"name": "mesh", "port": 15008, "protocol": "HBONE"},
        {"name": "again", "port": 15008, "protocol": "HBONE"},
        {"name": "mesh", "port": 80, "protocol": "HTTP"},
    ]});
    let all = made(json!({}), listeners);
    let ports = all[2]["spec"]["ports"].as_array().unwrap();
    let ports: Vec<(&str, u64)> = ports
        .iter()
        .map(|port| {
            (
                port["name"].as_str().unwrap(),
                port["port"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        ports,
        [("status-port", 15021), ("mesh", 15008), ("http-2-80", 80)]
    );
}

#[test]
fn infrastructure_decides_labels_and_annotations() {
    let meta = json!({"labels": {"own": "1"}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x", "a": "b"}});
    let passed_on = made(meta.clone(), json!({}));
    assert_eq!(passed_on[1]["metadata"]["labels"]["own"], "1");
    assert_eq!(passed_on[1]["metadata"]["annotations"], json!({"a": "b"}));
    let asked = made(
        meta,
        json!({"infrastructure": {"labels": {"team": "a"}, "annotations": {"c": "d"}}}),
    );
    assert_eq!(asked[1]["metadata"]["labels"].get("own"), None);
    assert_eq!(
        asked[1]["spec"]["template"]["metadata"]["labels"]["team"],
        "a"
    );
    assert_eq!(asked[1]["metadata"]["annotations"], json!({"c": "d"}));
}

#[test]
fn the_older_form_can_be_selected_by_its_label() {
    let meta = json!({"annotations": {"istio.io/for-service-account": "w"}});
    let all = made(meta, json!({}));
    assert_eq!(
        all[1]["spec"]["template"]["metadata"]["labels"][OLD_GATEWAY_NAME],
        "w"
    );
    assert_eq!(all[1]["metadata"]["name"], "w-istio-waypoint");
}
