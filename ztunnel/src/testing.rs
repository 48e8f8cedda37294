//! A small mesh for tests: pods by name and address, services in front of them, policies over them.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::identity::{Identity, TrustDomain};
use mesh::policy::{
    Action, Authorization, Clause, Inbound, Match, PolicyName, Rule, Scope, Source, StringMatch,
};
use mesh::workload::{
    AppProtocol, Health, HealthPolicy, IpFamilies, LoadBalancing, Locality, Mode, NetworkMode,
    PortMapping, Service, ServiceKey, TunnelProtocol, Uid, Vip, Visibility, Workload, WorkloadKind,
};
use mesh::world::{SharedWorld, Synced, World};

use crate::pods::Info;

/// A pod of namespace `default` whose Deployment and ServiceAccount have its name.
pub(crate) fn pod(name: &str, ip: &str) -> Workload {
    Workload {
        uid: Uid::new(&format!("Kubernetes//Pod/default/{name}")),
        name: name.into(),
        namespace: "default".into(),
        addresses: vec![ip.parse().unwrap()],
        hostname: None,
        network: mesh::address::Network::default(),
        tunnel: TunnelProtocol::Hbone,
        identity: identity(name),
        waypoint: None,
        network_gateway: None,
        node: "".into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        kind: WorkloadKind::Deployment,
        workload_name: name.into(),
        native_tunnel: false,
        application_tunnel: None,
        services: std::collections::BTreeMap::new(),
        policies: Vec::new(),
        health: Health::Healthy,
        cluster: "Kubernetes".into(),
        locality: Locality::default(),
        network_mode: NetworkMode::Standard,
        labels: None,
        capacity: 1,
    }
}

/// What the pod source says of it.
pub(crate) fn info(name: &str) -> Info {
    Info {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        service_account: name.to_owned(),
    }
}

pub(crate) fn identity(service_account: &str) -> Identity {
    Identity::new(
        &TrustDomain::new("cluster.local").unwrap(),
        "default",
        service_account,
    )
    .unwrap()
}

/// A service of namespace `default` with port 80 before its endpoints' 8080.
pub(crate) fn service(name: &str, vip: &str) -> Service {
    let address: IpAddr = vip.parse().unwrap();
    Service {
        key: ServiceKey::new("default", &format!("{name}.default.svc.cluster.local")),
        name: name.into(),
        vips: vec![Vip {
            network: mesh::address::Network::default(),
            block: address.into(),
        }],
        ports: vec![port_80()],
        subject_alt_names: Vec::new(),
        waypoint: None,
        weighted_waypoints: Vec::new(),
        load_balancing: LoadBalancing {
            preference: Vec::new(),
            mode: Mode::Any,
            health: HealthPolicy::OnlyHealthy,
        },
        ip_families: IpFamilies::Automatic,
        canonical: false,
        ingress_use_waypoint: false,
        visibility: Visibility::Public,
    }
}

/// The pod, backing that service.
pub(crate) fn backing(mut pod: Workload, service: &Service) -> Workload {
    pod.services.insert(service.key.clone(), vec![port_80()]);
    pod
}

fn port_80() -> PortMapping {
    PortMapping {
        service_port: 80,
        target_port: 8080,
        app_protocol: AppProtocol::Http11,
    }
}

/// A policy over namespace `default` that looks only at who calls.
pub(crate) fn policy(name: &str, action: Action, service_account: &str) -> Authorization {
    let principal = format!("cluster.local/ns/default/sa/{service_account}");
    let found = Match {
        principals: vec![StringMatch::Exact(principal.as_str().into())],
        ..Match::default()
    };
    Authorization {
        name: PolicyName::new("default", name),
        scope: Scope::Namespace,
        action,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![found],
            }],
        }],
        dry_run: false,
    }
}

/// A call from a ServiceAccount (or from nobody proven) to port 8080 of a workload.
pub(crate) fn call(service_account: Option<&str>, to: &Workload) -> Inbound {
    Inbound {
        source: Source {
            ip: "10.0.9.9".parse().unwrap(),
            identity: service_account.map(identity),
        },
        destination: (to.addresses[0], 8080).into(),
    }
}

/// A world that has heard everything there is.
pub(crate) fn world(workloads: impl IntoIterator<Item = Workload>) -> SharedWorld {
    let mut world = World::new("");
    for workload in workloads {
        world.insert_workload(workload);
    }
    world.mark_synced(Synced {
        workloads: true,
        policies: true,
    });
    SharedWorld::new(world)
}

/// The workload of a pod, as the world has it.
pub(crate) fn found(world: &SharedWorld, name: &str) -> Arc<Workload> {
    Arc::clone(world.read().pod("default", name).unwrap())
}
