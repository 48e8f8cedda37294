//! Hosts that a client names itself, of a dynamic forward proxy.

use mesh::ca::{Issuer, Issuing};
use mesh::certificate::Certificates;
use mesh::identity::Identity;

use super::*;
use crate::model::cluster::Discovery;
use crate::model::snapshot::Current;

/// Issues nothing: no tunnel is wanted.
struct Nobody;

impl Issuer for Nobody {
    fn issue<'a>(&'a self, _: &'a Identity) -> Issuing<'a> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_client_that_names_its_host_does_not_reach_what_is_our_own() {
    story(async {
        let server = named("own").await;
        let mut cluster = cluster();
        cluster.discovery = Discovery::DynamicForwardProxy { port: None };
        let cluster = entry(cluster, &[]);
        let current = Current::default();
        publish(&current, &cluster);
        let own = Identified {
            identity: "spiffe://cluster.local/ns/shop/sa/waypoint"
                .parse()
                .unwrap(),
            certificates: Certificates::new(Arc::new(Nobody), Vec::new()),
            network: String::new(),
        };
        let in_a_mesh = Upstreams::new(Shared::default(), current, Some(own), Arc::new(NoTls));
        let elsewhere = in_force(&cluster);
        let down = down();
        let authority = server.address.to_string();
        let choice = Choice {
            authority: Some(&authority),
            ..Choice::new(&down)
        };
        let sent = in_a_mesh.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
        let failure = sent.await.unwrap_err().failure;
        let told = failure.transport_failure().unwrap();
        assert!(told.contains("the proxy's own host"), "{told}");
        assert_eq!(server.seen.borrow().connections, 0);
        // Outside of a mesh there is nobody to be kept from anything.
        let sent = elsewhere.send(&cluster, &choice, Permit::by_waypoint(), get("/"));
        assert_eq!(text(sent.await.unwrap()).await, "own");
    });
}
