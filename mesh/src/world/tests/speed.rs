//! Choosing and deciding stay fast when there is much.

use std::time::Duration;

use rand::SeedableRng;

use super::decisions::plaintext;
use super::*;
use crate::workload::PortMapping;

/// With 10,000 endpoints and 10,000 policies in scope. On a busy machine a route took 7 µs and a
/// decision 0.4 µs optimised, about 20 µs each not optimised; the bound is ten times that, so that
/// only an accidental scan fails it.
#[test]
fn much_is_not_slow() {
    let mut world = synced();
    for i in 0..10_000 {
        let address = format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255);
        world.insert_workload(workload(&format!("w{i}"), &[&*address], &["x"]));
    }
    let mut service = service("x", &["10.96.0.1/32"]);
    service.ports = vec![PortMapping {
        service_port: 80,
        target_port: 8080,
        app_protocol: crate::workload::AppProtocol::Tcp,
    }];
    world.insert_service(service);
    for i in 0..10_000 {
        let principal = crate::policy::StringMatch::Exact(format!("td/ns/a/sa/{i}").into());
        let one = crate::policy::Match {
            principals: vec![principal],
            ..Default::default()
        };
        let clause = crate::policy::Clause { matches: vec![one] };
        world.insert_policy(Authorization {
            scope: Scope::Global,
            rules: vec![Rule {
                clauses: vec![clause],
            }],
            ..policy(&format!("root/{i}"), Action::Allow)
        });
    }
    let from = world.workload(&Uid::new("w0")).unwrap().clone();
    let to = OrigDst::new("10.96.0.1:80".parse().unwrap());
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let each = |what: &str, n: u32, mut one: Box<dyn FnMut() + '_>| {
        let begin = std::time::Instant::now();
        (0..n).for_each(|_| one());
        let each = begin.elapsed() / n;
        println!("{what}: {each:?}");
        assert!(each < Duration::from_micros(200), "{what} takes {each:?}");
    };
    each(
        "route",
        2000,
        Box::new(|| drop(world.route(&from, to, &mut rng).unwrap())),
    );
    let mut connection = plaintext();
    connection.source.identity = Some("spiffe://td/ns/a/sa/7777".parse().unwrap());
    each(
        "authorize",
        2000,
        Box::new(|| drop(world.authorize(&from, &connection).unwrap())),
    );
}
