//! The real istioctl asks our control how far its proxies are.

use std::process::Command;

use cluster::{Tool, Tools};
use plane::install;
use plane::replica::Replica;
use plane::until::until;

use super::ground::*;

/// What istioctl prints, asked of this replica.
fn istioctl(ground: &Ground, replica: &Replica, words: &[&str]) -> Option<String> {
    let program = Tools::from_env().get(Tool::Istioctl, &|_| {}).unwrap();
    let output = Command::new(program)
        .args(words)
        .args(["--xds-address", &replica.grpc.to_string(), "--insecure"])
        .args(["--timeout", "10s", "--kubeconfig"])
        .arg(ground.server.administrator().unwrap())
        .output()
        .unwrap();
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    if !output.status.success() {
        eprintln!("{words:?}: {error}");
        return None;
    }
    Some(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_status_shows_each_proxy_and_how_far_it_is() {
    let ground = Ground::new().await;
    // The account whose token istioctl shows.
    install::mesh_token(&ground.client, install::NAMESPACE, "default")
        .await
        .unwrap();
    let control = ground.replica("control-1", &[]).await;
    let _proxy = ground.proxy(&[&control], "ztunnel-7").await;
    let words = ["proxy-status", "--verbosity", "1"];
    let asked = || async {
        let told = istioctl(&ground, &control, &words)?;
        let mut rows = told
            .lines()
            .filter(|row| row.contains("ztunnel-7.istio-system"));
        let row = rows.next()?.to_owned();
        row.contains("SYNCED").then_some(row)
    };
    let row = until("istioctl shows the proxy", PATIENCE, asked)
        .await
        .unwrap();
    for word in ["Kubernetes", "control-1"] {
        assert!(row.contains(word), "{word} is not in {row:?}");
    }
}
