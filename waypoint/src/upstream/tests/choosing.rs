//! Which endpoint a request goes to, over real sockets: sessions, subsets, those tried, those ejected.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use mesh::policy::Permit;

use crate::model::cluster::{Cluster, Outlier};
use crate::model::snapshot::Current;
use crate::model::text::Fraction;
use crate::upstream::test_rig::*;
use crate::upstream::{Choice, Session, Shared, Upstreams};

#[test]
fn an_endpoint_that_keeps_failing_is_left_out() {
    story(async {
        let bad = server(Version::HTTP_11, |_: Request<_>| async {
            let mut response = Response::new(Full::<Bytes>::from("bad"));
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
        .await;
        let good = named("good").await;
        let mut cluster = cluster();
        cluster.outlier = Some(outlier());
        cluster.locality.panic_threshold = 0.0;
        let (upstreams, cluster) = reaching(cluster, &[bad.address, good.address]);
        let mut answers = Vec::new();
        for _ in 0..40 {
            answers.push(text(ask(&upstreams, &cluster).await.unwrap()).await);
        }
        let bad = answers.iter().filter(|answer| *answer == "bad").count();
        assert_eq!(bad, 3, "three errors in a row, and then none");
    });
}

#[test]
fn nobody_is_left_out_once_outlier_detection_is_over() {
    story(async {
        let failing = Rc::new(Cell::new(true));
        let fails = failing.clone();
        let server = server(Version::HTTP_11, move |_: Request<_>| {
            let mut response = Response::new(Full::<Bytes>::from("said"));
            if fails.get() {
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            }
            async { response }
        })
        .await;
        let strict = || {
            let mut cluster = cluster();
            cluster.locality.panic_threshold = 0.0;
            cluster
        };
        let judged = Cluster {
            outlier: Some(outlier()),
            ..strict()
        };
        let current = Current::default();
        let (judged, free) = (
            entry(judged, &[server.address]),
            entry(strict(), &[server.address]),
        );
        publish(&current, &judged);
        let upstreams = Upstreams::new(Shared::default(), current.clone(), None, Arc::new(NoTls));
        while ask(&upstreams, &judged).await.is_ok() {}
        failing.set(false);
        publish(&current, &free);
        let served = loop {
            // Until the worker has looked after its clusters.
            match ask(&upstreams, &free).await {
                Ok(sent) => break sent,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(text(served).await, "said");
    });
}

fn outlier() -> Outlier {
    Outlier {
        consecutive_5xx: 3,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 0,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 100,
        always_eject_one: true,
        enforcing_success_rate: 0,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_failure_percentage: 0,
        failure_percentage_threshold: 85,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        errors: None,
    }
}

#[test]
fn a_session_finds_its_endpoint_and_a_strict_one_goes_nowhere_else() {
    story(async {
        let servers = [named("a").await, named("b").await, named("c").await];
        let addresses = servers.each_ref().map(|server| server.address);
        let (upstreams, cluster) = reaching(cluster(), &addresses[..2]);
        let down = down();
        let mut choice = Choice::new(&down);
        let sticky = |address, strict| Some(Session { address, strict });
        choice.session = sticky(addresses[1], true);
        for _ in 0..4 {
            let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
            assert_eq!(text(sending.await.unwrap()).await, "b");
        }
        choice.session = sticky(addresses[2], true);
        let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
        assert_eq!(sending.await.unwrap_err().failure.flag(), "UH");
        choice.session = sticky(addresses[2], false);
        let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
        assert_ne!(text(sending.await.unwrap()).await, "c");
    });
}

#[test]
fn a_tried_endpoint_is_avoided_and_a_subset_is_kept_to() {
    story(async {
        let (a, b) = (named("a").await, named("b").await);
        let cluster = entry(cluster(), &[]);
        let mut canary = (*endpoint(b.address)).clone();
        canary.lb = vec![("version".into(), "v2".into())].into();
        let set = vec![endpoint(a.address), Arc::new(canary)];
        cluster.endpoints.store(Arc::new(endpoints(set.clone())));
        let upstreams = in_force(&cluster);
        let down = down();
        let subset = [("version".into(), "v2".into())];
        for _ in 0..4 {
            let mut choice = Choice::new(&down);
            choice.metadata = &subset;
            let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
            assert_eq!(text(sending.await.unwrap()).await, "b");
            let mut choice = Choice::new(&down);
            (choice.tried, choice.avoid_tried) = (&set[1..], true);
            choice.host_attempts = 3;
            let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
            assert_eq!(text(sending.await.unwrap()).await, "a");
        }
        let nobody = [("version".into(), "v3".into())];
        let mut choice = Choice::new(&down);
        choice.metadata = &nobody;
        let sending = upstreams.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
        assert_eq!(sending.await.unwrap_err().failure.flag(), "UH");
    });
}

#[test]
fn a_share_is_dropped_where_the_control_plane_says_so() {
    story(async {
        let server = named("a").await;
        let (upstreams, cluster) = reaching(cluster(), &[]);
        let mut set = endpoints(vec![endpoint(server.address)]);
        set.drops = vec![("throttle".into(), Fraction::ALWAYS)];
        cluster.endpoints.store(Arc::new(set));
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        assert_eq!(refused.failure.flag(), "DO");
        assert_eq!(refused.failure.details(), "drop_overload");
    });
}

#[test]
fn an_endpoint_that_goes_is_not_waited_for() {
    story(async {
        // Like the address of a pod that is gone: a queue that is full drops further connections.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = silent.unwrap();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        silent.bind(&any.into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        while let Ok(connected) = tokio::time::timeout(
            Duration::from_millis(300),
            tokio::net::TcpStream::connect(address),
        )
        .await
        {
            filling.push(connected.unwrap());
        }
        let good = named("good").await;
        let mut cluster = cluster();
        // Longer than a story may take.
        cluster.connect_timeout = Duration::from_secs(60);
        let (upstreams, cluster) = reaching(cluster, &[address]);
        let change = async {
            tokio::task::yield_now().await;
            let set = endpoints(vec![endpoint(good.address)]);
            cluster.endpoints.store(Arc::new(set));
        };
        let (answered, ()) = tokio::join!(ask(&upstreams, &cluster), change);
        assert_eq!(text(answered.unwrap()).await, "good");
    });
}
