//! `istioctl proxy-config` reads what our admin interface shows of a configuration, byte for byte as
//! `istioctl` would get it from a pod: the real program, on files of the dumps.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cluster::{Tool, Tools};
use oracle::backend::Journal;
use oracle::resources::Resources;
use oracle::subject::{Kind, Subject};
use oracle::{theme, wire};
use serde_json::{Value, json};
use tokio::process::Command;

const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const TLS_PORT: u16 = 20_001;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istioctl_reads_our_dumps() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir()?;
    let journal = Arc::new(Journal::default());
    let theme = theme::read(&here.join("cases/weights.yaml"), 20_000)?;
    let mut resources = theme.resources(&journal).await?;
    let cluster = resources.clusters[0]["name"].clone();
    let cluster = cluster.as_str().context("a cluster's name")?.to_owned();
    with_tls(&mut resources)?;
    let subject = Subject::start(Kind::Waypoint, &resources, scratch.path(), 1).await?;

    let config = scratch.path().join("config.json");
    let clusters = scratch.path().join("clusters.json");
    for (path, file) in [
        ("/config_dump?include_eds", &config),
        ("/clusters?format=json", &clusters),
    ] {
        let answer = wire::get(subject.admin(), path).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        std::fs::write(file, &answer.body)?;
    }
    for (what, file, told) in [
        ("listener", &config, vec!["20000", "20001", "ADDRESSES"]),
        ("cluster", &config, vec![cluster.as_str(), "STATIC"]),
        ("route", &config, vec!["weights", "DOMAINS"]),
        (
            "endpoint",
            &clusters,
            vec![cluster.as_str(), "HEALTHY", "127.0.0.1:"],
        ),
        ("secret", &config, vec!["server", "ACTIVE", "true"]),
    ] {
        let said = istioctl(what, file).await?;
        for word in told {
            ensure!(said.contains(word), "{what}: no {word:?} in:\n{said}");
        }
    }
    // The whole of it, too: what the table leaves out must still be readable.
    let whole: Value =
        serde_json::from_str(&proxy_config("cluster", &config, &["-o", "json"]).await?)?;
    let names = whole.as_array().context("a list of clusters")?.iter();
    let names: Vec<_> = names.filter_map(|one| one["name"].as_str()).collect();
    ensure!(names.contains(&cluster.as_str()), "{names:?}");
    Ok(())
}

async fn istioctl(what: &str, file: &Path) -> Result<String> {
    proxy_config(what, file, &[]).await
}

async fn proxy_config(what: &str, file: &Path, more: &[&str]) -> Result<String> {
    let istioctl = Tools::from_env().get(Tool::Istioctl, &|line| eprintln!("oracle: {line}"))?;
    let output = Command::new(istioctl)
        .args(["proxy-config", what, "--file"])
        .arg(file)
        .args(more)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{what}: {}: {said}{failed}",
        output.status
    );
    Ok(said)
}

/// A second listener, whose certificate comes by discovery: only such are shown as secrets.
fn with_tls(resources: &mut Resources) -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["server.local".to_owned()])?;
    let certificate = certificate.self_signed(&key)?;
    let mut listener = resources.listeners[0].clone();
    listener["name"] = "tls".into();
    listener["address"]["socket_address"]["port_value"] = TLS_PORT.into();
    listener["filter_chains"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": TLS, "common_tls_context": {
            "tls_certificate_sds_secret_configs": [{"name": "server", "sds_config": {"ads": {}}}]}},
    });
    resources.listeners.push(listener);
    resources.others.push(json!({
        "@type": SECRET,
        "name": "server",
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate.pem()},
            "private_key": {"inline_string": key.serialize_pem()},
        },
    }));
    Ok(())
}
