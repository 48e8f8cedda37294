//! The command lines that istiod's template and a person with a laptop write.

use super::*;

fn read(line: &str) -> Result<Flags, Refused> {
    Flags::read(line.split_whitespace())
}

const POD: &str = "--pod-name w-1 --pod-namespace bookinfo";

#[test]
fn the_template_of_istiod_is_understood() {
    // Clap takes our own flags before the role; Istio's follow it, and unknown ones do no harm.
    let flags = read(&format!(
        "waypoint proxy {POD} waypoint --domain bookinfo.svc.cluster.local --serviceCluster \
         w.bookinfo --proxyLogLevel warning --proxyComponentLogLevel misc:error \
         --log_output_level default:info --concurrency=3 --not-known yes"
    ))
    .unwrap();
    let Command::Proxy(proxy) = &flags.command else {
        panic!("{flags:?}");
    };
    assert_eq!(proxy.domain(), "bookinfo.svc.cluster.local");
    assert_eq!(flags.concurrency().get(), 3);
    assert_eq!(flags.log(), "warn,waypoint=info,mesh=info");
    assert_eq!(flags.ports()[0].unwrap().port(), 15021);
}

#[test]
fn a_laptop_opens_no_further_ports() {
    let flags =
        read("waypoint serve --resources /tmp --concurrency 2 --admin 127.0.0.1:0").unwrap();
    assert_eq!(flags.ports(), [None; 3]);
    assert_eq!(flags.concurrency().get(), 2);
    assert_eq!(flags.log(), "info");
    assert_eq!(flags.drain().deadline(), Some(Duration::from_secs(5)));
}

#[test]
fn other_roles_and_pods_without_a_name_are_refused() {
    for (line, why) in [
        (format!("waypoint proxy {POD} sidecar"), "proxy sidecar"),
        ("waypoint proxy waypoint".to_owned(), "POD_NAME"),
        ("waypoint serve".to_owned(), "--resources"),
    ] {
        let refused = read(&line).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn the_drain_is_the_environments_or_the_meshs() {
    let config = ProxyConfig::parse(
        r#"{"terminationDrainDuration":"10s","concurrency":2,"statusPort":15020}"#,
    )
    .unwrap();
    let mut drain = Drain {
        duration: None,
        exit_on_zero_active_connections: false,
        minimum_drain: None,
    };
    assert_eq!(
        drain.or_as(&config).deadline(),
        Some(Duration::from_secs(10))
    );
    drain.duration = Some(Duration::from_secs(1));
    assert_eq!(
        drain.or_as(&config).deadline(),
        Some(Duration::from_secs(1))
    );
    drain.exit_on_zero_active_connections = true;
    assert_eq!(drain.deadline(), None);
    assert_eq!(drain.at_least(), Duration::from_secs(5));
    assert!(ProxyConfig::parse(r#"{"terminationDrainDuration":"soon"}"#).is_err());
}
