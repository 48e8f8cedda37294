//! Calls to services by their virtual addresses, and calls to what is no part of the mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::{Lab, Pod};
use mesh::file::format::{LoadBalancing, Mode, Place, Status};

use crate::story::{PORT, Pair, logged};

/// Who answered each of `count` requests to a service.
async fn answers(client: &Pod, to: std::net::SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let verdict = client.get(to).await;
        let text = verdict
            .answer()
            .unwrap_or_else(|| panic!("{verdict}"))
            .to_owned();
        let name = text.split(' ').next().unwrap_or_default().to_owned();
        *answers.entry(name).or_default() += 1;
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_spreads_over_its_endpoints_in_and_outside_the_mesh() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let (near, plain) = tokio::try_join!(
        lab.pod("near").serving(PORT).start(),
        lab.pod("plain")
            .on(lab.node(2))
            .outside_the_mesh()
            .serving(PORT)
            .start(),
    )
    .unwrap();
    let service = lab
        .service("shop", &[(80, PORT)], &[&server, &near, &plain])
        .await
        .unwrap();
    for address in service.both() {
        let answers = answers(&client, (address, 80).into(), 60).await;
        assert_eq!(answers.len(), 3, "{address}: {answers:?}");
        assert!(
            answers.values().all(|count| *count >= 5),
            "{address}: {answers:?}"
        );
    }
    let line = logged(
        lab.node(1),
        &[("direction", "outbound"), ("dst.workload", "server")],
    )
    .await;
    assert_eq!(line.get("dst.service"), "shop.default.svc.cluster.local");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unhealthy_endpoint_is_left_out_and_the_nearest_preferred() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let near = lab.pod("near").serving(PORT).start().await.unwrap();
    let service = lab
        .service("shop", &[(80, PORT)], &[&server, &near])
        .await
        .unwrap();
    let to = (service.v4, 80).into();
    let set_health = |pod: &Pod, status| {
        let uid = pod.uid().to_owned();
        move |document: &mut lab::document::Document| {
            document.workloads.get_mut(&uid).unwrap().status = status
        }
    };
    lab.change(set_health(&near, Status::Unhealthy))
        .await
        .unwrap();
    assert_eq!(
        answers(&client, to, 15).await,
        BTreeMap::from([("server".to_owned(), 15)])
    );
    lab.change(set_health(&near, Status::Healthy))
        .await
        .unwrap();
    lab.change(|document| {
        let shop = document
            .services
            .get_mut("shop.default.svc.cluster.local")
            .unwrap();
        shop.load_balancing = Some(LoadBalancing {
            mode: Mode::Failover,
            routing_preference: vec![Place::Node],
            ..LoadBalancing::default()
        });
    })
    .await
    .unwrap();
    assert_eq!(
        answers(&client, to, 15).await,
        BTreeMap::from([("near".to_owned(), 15)])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_endpoints_is_a_clear_no_with_its_name_in_the_log() {
    let Pair {
        lab,
        client,
        server: _server,
    } = Pair::start().await;
    let service = lab.service("empty", &[(80, PORT)], &[]).await.unwrap();
    for address in service.both() {
        let verdict = client.get((address, 80).into()).await;
        assert!(verdict.is_denied(), "{verdict}");
    }
    let to = format!("{}:80", service.v4);
    let line = logged(lab.node(1), &[("direction", "outbound"), ("dst.addr", &to)]).await;
    assert!(
        line.get("error")
            .contains("empty.default.svc.cluster.local"),
        "{line:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_part_of_the_mesh_is_passed_through() {
    let Pair {
        lab,
        client,
        server: _server,
    } = Pair::start().await;
    let (machine, addresses) = lab.machine("machine").unwrap();
    machine.serve(PORT).await.unwrap();
    let from = [client.ip(), client.addresses().v6.into()];
    for (address, from) in addresses.both().into_iter().zip(from) {
        let verdict = client.get((address, PORT).into()).await;
        assert!(
            verdict
                .answer()
                .is_some_and(|text| text.contains(&from.to_string())),
            "{verdict}"
        );
    }
    let closed = client.get((addresses.v4, 81).into()).await;
    assert!(closed.is_denied(), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passthrough_service_keeps_the_address_that_was_called() {
    let Pair {
        lab,
        client,
        server: _server,
    } = Pair::start().await;
    let (machine, addresses) = lab.machine("machine").unwrap();
    machine.serve(PORT).await.unwrap();
    lab.change(|document| {
        let mut service = lab::document::service("outside", "default", addresses, &[(PORT, PORT)]);
        service.load_balancing = Some(LoadBalancing {
            mode: Mode::Passthrough,
            ..LoadBalancing::default()
        });
        document.services.insert(service.hostname.clone(), service);
    })
    .await
    .unwrap();
    let verdict = client.get((addresses.v4, PORT).into()).await;
    assert!(
        verdict
            .answer()
            .is_some_and(|text| text.starts_with("machine sees")),
        "{verdict}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_calls_its_own_service_and_its_own_address() {
    let lab = Lab::builder().nodes(1).start().await.unwrap();
    let own = lab.pod("own").serving(PORT).start().await.unwrap();
    let service = lab.service("own", &[(80, PORT)], &[&own]).await.unwrap();
    for to in [own.at(PORT), (service.v4, 80).into(), own.at_v6(PORT)] {
        let verdict = own.get(to).within(Duration::from_secs(8)).await;
        assert!(verdict.answer().is_some(), "{to}: {verdict}");
    }
}
