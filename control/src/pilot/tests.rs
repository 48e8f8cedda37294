//! Batches of reports → what is published and told.

use super::*;
use crate::objects::Namespace;
use crate::resource::ResourceType;
use crate::translate::Mesh;

fn pilot() -> (Pilot, Arc<Hub>) {
    let hub = Arc::new(Hub::default());
    let index = Arc::new(RwLock::new(Index::new(Mesh::default())));
    let pilot = Pilot::new(
        index,
        hub.clone(),
        Arc::new(Fleet::default()),
        Arc::new(Queue::default()),
        Arc::new(Metrics::default()),
    );
    (pilot, hub)
}

fn namespace(name: &str, terminating: bool) -> Report {
    let namespace = Namespace {
        name: name.to_owned(),
        terminating,
        traffic_distribution: None,
        labels: crate::objects::Labels::new(),
    };
    Report::Change(Change::Applied(Object::Namespace(namespace)))
}

fn service(name: &str) -> Report {
    let object = serde_json::json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {}});
    let service =
        crate::objects::Service::from_kubernetes(&serde_json::from_value(object).unwrap()).unwrap();
    Report::Change(Change::Applied(Object::Service(Box::new(service))))
}

fn listed(kind: Kind, names: &[&str]) -> Report {
    Report::Listed(
        kind,
        names.iter().map(|name| Key::new("ns", *name)).collect(),
    )
}

fn all_listed_but(kind: Kind) -> Vec<Report> {
    Kind::ALL
        .into_iter()
        .filter(|other| *other != kind)
        .map(|kind| listed(kind, &[]))
        .collect()
}

fn published(hub: &Hub) -> Vec<String> {
    let store = hub.store();
    let all = store
        .collection(ResourceType::Address)
        .into_iter()
        .flat_map(|all| all.iter());
    all.map(|resource| resource.name.to_string()).collect()
}

#[test]
fn nothing_is_served_before_every_kind_is_listed() {
    let (mut pilot, hub) = pilot();
    let mut batch = all_listed_but(Kind::Service);
    batch.push(service("a"));
    pilot.take(batch, Instant::now());
    assert!(!*hub.ready().borrow());
    assert!(published(&hub).is_empty());
    pilot.take(vec![listed(Kind::Service, &["a"])], Instant::now());
    assert!(*hub.ready().borrow());
    assert_eq!(published(&hub), ["ns/a.ns.svc.cluster.local"]);
}

#[test]
fn what_went_while_a_watch_was_down_is_removed() {
    let (mut pilot, hub) = pilot();
    let mut batch = all_listed_but(Kind::Service);
    batch.extend([
        service("a"),
        service("b"),
        listed(Kind::Service, &["a", "b"]),
    ]);
    pilot.take(batch, Instant::now());
    pilot.take(vec![Report::Broke(Kind::Service)], Instant::now());
    assert_eq!(published(&hub).len(), 2, "what was known stays");
    pilot.take(
        vec![service("c"), listed(Kind::Service, &["a", "c"])],
        Instant::now(),
    );
    assert_eq!(
        published(&hub),
        ["ns/a.ns.svc.cluster.local", "ns/c.ns.svc.cluster.local"]
    );
}

#[test]
fn the_namespaces_that_can_hold_a_root_are_told() {
    let (mut pilot, _hub) = pilot();
    let namespaces = pilot.namespaces();
    let mut batch = all_listed_but(Kind::Namespace);
    let exist = ["a", "b"].map(|name| Key::new("", name));
    batch.extend([
        namespace("a", false),
        namespace("b", false),
        Report::Listed(Kind::Namespace, exist.into()),
    ]);
    pilot.take(batch, Instant::now());
    let now = |receiver: &watch::Receiver<BTreeSet<String>>| {
        receiver.borrow().iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(now(&namespaces), ["a", "b"]);
    pilot.take(vec![namespace("b", true)], Instant::now());
    assert_eq!(now(&namespaces), ["a"]);
    pilot.take(
        vec![Report::Change(Change::Removed(
            Kind::Namespace,
            Key::new("", "a"),
        ))],
        Instant::now(),
    );
    assert!(now(&namespaces).is_empty());
}

#[test]
fn quiet_ends_the_gathering_and_a_stream_of_changes_does_not_put_it_off() {
    let ms = Duration::from_millis;
    let debounce = Debounce {
        quiet: ms(10),
        longest: ms(35),
    };
    let first = Instant::now();
    let until = |at, pace| debounce.until(first, first + ms(at), pace) - first;
    assert_eq!(until(0, first), ms(10));
    assert_eq!(until(9, first), ms(19));
    assert_eq!(until(30, first), ms(35));
    assert_eq!(until(50, first), ms(35));
    // The last push was a moment ago.
    assert_eq!(until(0, first + ms(20)), ms(20));
    assert_eq!(until(15, first + ms(20)), ms(25));
    assert_eq!(until(0, first + ms(90)), ms(35));
}

#[tokio::test]
async fn changes_that_wait_together_are_published_together() {
    let (pilot, hub) = pilot();
    let (reports, receiver) = mpsc::channel(64);
    for report in all_listed_but(Kind::Service) {
        reports.send(report).await.unwrap();
    }
    for name in ["a", "b", "c"] {
        reports.send(service(name)).await.unwrap();
    }
    reports
        .send(listed(Kind::Service, &["a", "b", "c"]))
        .await
        .unwrap();
    drop(reports);
    pilot
        .run(
            receiver,
            Debounce {
                quiet: Duration::from_secs(60),
                longest: Duration::from_secs(60),
            },
        )
        .await;
    assert_eq!(published(&hub).len(), 3);
    assert_eq!(hub.follow().borrow().revision, 1);
}
