//! What people and tools see of ztunnel: metrics with Istio's names, the access log, the admin
//! port, readiness.

use lab::{Direction, Lab};

use crate::story::{PORT, Pair, counted, logged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_bytes_are_counted_under_istios_names_at_both_ends() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let service = lab
        .service("shop", &[(80, PORT)], &[&server])
        .await
        .unwrap();
    let done = client
        .transfer((service.v4, 80).into(), Direction::Up, 10_000, "counted")
        .await
        .unwrap();
    assert!(done.intact);
    let names = [
        ("source_workload", "client"),
        ("source_workload_namespace", "default"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/default/sa/client",
        ),
        ("source_canonical_service", "client"),
        ("source_canonical_revision", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", "server"),
        ("destination_workload_namespace", "default"),
        (
            "destination_principal",
            "spiffe://cluster.local/ns/default/sa/server",
        ),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
    ];
    let service = [
        ("destination_service", "shop.default.svc.cluster.local"),
        ("destination_service_name", "shop"),
    ];
    for (node, reporter) in [(lab.node(1), "source"), (lab.node(2), "destination")] {
        let mut labels = names.to_vec();
        labels.push(("reporter", reporter));
        labels.extend(service);
        counted(node, "istio_tcp_connections_opened_total", &labels, 1.0).await;
        counted(node, "istio_tcp_connections_closed_total", &labels, 1.0).await;
        counted(node, "istio_tcp_sent_bytes_total", &labels, 10_000.0).await;
        counted(node, "istio_tcp_received_bytes_total", &labels, 9.0).await;
    }
    let line = logged(
        lab.node(1),
        &[("direction", "outbound"), ("dst.workload", "server")],
    )
    .await;
    let sent: u64 = line.get("bytes_sent").parse().unwrap();
    assert!((10_000..10_100).contains(&sent), "{line:?}");
    assert_eq!(line.get("bytes_recv"), "OK 10000\n".len().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_shows_workloads_services_policies_and_certificates() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    lab.service("shop", &[(80, PORT)], &[&server])
        .await
        .unwrap();
    lab.policy(lab::document::allow(
        "everybody",
        mesh::file::format::Match::default(),
    ))
    .await
    .unwrap();
    client.get(server.at(PORT)).await;
    let dump = lab.node(1).ztunnel().admin("GET", "/config_dump").unwrap();
    assert_eq!(dump.status, 200);
    let dump: serde_json::Value = serde_json::from_str(&dump.body).unwrap();
    for part in ["workloads", "services", "policies", "certificates"] {
        assert!(dump.get(part).is_some(), "no {part} in {dump}");
    }
    let text = dump.to_string();
    for name in [
        "client",
        "shop.default.svc.cluster.local",
        "everybody",
        "spiffe://cluster.local/ns/default/sa/client",
    ] {
        assert!(text.contains(name), "no {name} in {text}");
    }
    assert!(!text.contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_level_changes_while_it_runs() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let ztunnel = lab.node(1).ztunnel();
    let answer = ztunnel.admin("POST", "/logging?level=access=off").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    counted(
        lab.node(1),
        "istio_tcp_connections_closed_total",
        &[("reporter", "source")],
        1.0,
    )
    .await;
    assert!(ztunnel.log().access().is_empty());
    assert_eq!(
        ztunnel.admin("POST", "/logging?level=info").unwrap().status,
        200
    );
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    logged(
        lab.node(1),
        &[("direction", "outbound"), ("dst.workload", "server")],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ztunnel_is_ready_only_after_its_first_workloads_and_pods() {
    let lab = Lab::builder()
        .nodes(1)
        .without_ztunnel()
        .start()
        .await
        .unwrap();
    let ztunnel = lab.node(1).ztunnel();
    let folder = lab.traces().folder;
    let missing = folder.join("not-there-yet.yaml");
    let recipe = ztunnel.recipe();
    let real = recipe.environment["LOCAL_XDS_PATH"].clone();
    ztunnel.set_recipe(recipe.with("LOCAL_XDS_PATH", missing.to_string_lossy()));
    ztunnel.launch().unwrap();
    let started =
        || lab.node(1).zds().is_connected() && ztunnel.admin("GET", "/config_dump").is_ok();
    lab::patience::until(
        "its ports to answer",
        std::time::Duration::from_secs(10),
        started,
    )
    .await
    .unwrap();
    assert!(!ztunnel.is_ready());
    std::fs::copy(real, &missing).unwrap();
    ztunnel.ready().await.unwrap();
}
