//! The command line as people write it, right and wrong.

use super::*;

fn read(arguments: &[&str]) -> Result<Flags, Refused> {
    Flags::read(
        ["ztunnel", "--node-name", "node-a"]
            .iter()
            .chain(arguments)
            .copied(),
    )
}

/// The one line that a bad command line is answered with.
fn refusal(arguments: &[&str]) -> String {
    match read(arguments) {
        Err(Refused::Bad(line)) => line,
        other => panic!("{arguments:?} gave {other:?}"),
    }
}

#[test]
fn defaults_are_those_of_an_istio_installation() {
    let flags = read(&[]).unwrap();
    assert_eq!(flags.command, None);
    assert_eq!(flags.trust_domain.to_string(), "cluster.local");
    assert_eq!(flags.xds_address, "https://istiod.istio-system.svc:15012");
    assert_eq!(flags.ca_address, None);
    assert_eq!(flags.secret_ttl, Duration::from_secs(24 * 3600));
    assert_eq!(flags.pod_source, PodSource::Agent);
    assert_eq!(flags.stats_addr, "[::]:15020".parse().unwrap());
    assert_eq!(flags.drain(), Duration::from_secs(25));
}

#[test]
fn uninstall_needs_no_node_and_takes_the_places_it_cleans() {
    let flags = Flags::read(["ztunnel", "uninstall", "--bpffs", "/tmp/bpf"]).unwrap();
    assert_eq!(flags.command, Some(Command::Uninstall));
    assert_eq!(flags.bpffs, PathBuf::from("/tmp/bpf"));
}

#[test]
fn the_node_agent_needs_the_name_of_its_node() {
    let error = Flags::read(["ztunnel", "--node-name", ""])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("NODE_NAME") && error.contains("spec.nodeName"),
        "{error}"
    );
    assert!(Flags::read(["ztunnel", "--pod-source", "zds"]).is_ok());
}

#[test]
fn a_bad_value_is_one_line_that_names_the_flag_the_variable_and_the_cause() {
    let table: [(&[&str], &str); 10] = [
        (
            &["--instance-ip", "nine"],
            "--instance-ip (INSTANCE_IP) is \"nine\": invalid IP address syntax",
        ),
        (
            &["--xds-address", "istiod:15012"],
            "it must begin with https://",
        ),
        (&["--xds-address", "https://istiod"], "it names no port"),
        (
            &["--ca-address", "ftp://ca:15012"],
            "--ca-address (CA_ADDRESS) is \"ftp://ca:15012\": it must begin",
        ),
        (&["--secret-ttl", "a day"], "it should look like 24h"),
        (&["--secret-ttl", "0s"], "it must be more than nothing"),
        (
            &["--pod-source", "cni"],
            "--pod-source (POD_SOURCE) is \"cni\": it can be one of agent, zds",
        ),
        (
            &["--zt-worker-threads"],
            "--zt-worker-threads is not a flag of ztunnel",
        ),
        (&["--rust-log", "info,,=]x"], "--rust-log (RUST_LOG)"),
        (
            &["--trust-domain", "a/b"],
            "--trust-domain (TRUST_DOMAIN) is \"a/b\"",
        ),
    ];
    for (arguments, expected) in table {
        let line = refusal(arguments);
        assert!(line.contains(expected), "{line}");
        assert!(!line.contains('\n'), "more than one line: {line}");
    }
}
