//! The authority's Secrets: plugged in, rotated, deleted, torn.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use plane::install;
use plane::replica::Replica;
use plane::until::until;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use super::ground::*;

fn secrets(ground: &Ground) -> Api<Secret> {
    Api::namespaced(ground.client.clone(), install::NAMESPACE)
}

/// The text under a key of a Secret.
async fn text(ground: &Ground, secret: &str, key: &str) -> Option<String> {
    let found = secrets(ground).get_opt(secret).await.ok()??;
    let bytes = found.data?.remove(key)?;
    String::from_utf8(bytes.0).ok()
}

/// Waits until the published root is so.
async fn root_is(ground: &Ground, what: &str, good: impl Fn(&str) -> bool) {
    until(what, PATIENCE, || async {
        good(&ground.root(install::NAMESPACE).await).then_some(())
    })
    .await
    .unwrap();
}

/// Whether somebody who trusts this root, and nothing else, can call the replica.
async fn serves(ground: &Ground, replica: &Replica, root: &str) -> bool {
    let way = plane::proxy::Way {
        root: root.to_owned(),
        ..ground.way(&[replica]).await
    };
    let proxy = plane::proxy::Proxy::start(way, "ztunnel".to_owned());
    let told = proxy.until("it is served", std::time::Duration::from_secs(3), |known| {
        known.responses > 0
    });
    told.await.is_ok()
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A root and an intermediate below it, as `cacerts` has them: the root, and the Secret.
fn plugged_in(name: &str, further_roots: &str) -> (String, serde_json::Value) {
    let root_key = KeyPair::generate().unwrap();
    let root = authority(name).self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::from_ca_cert_pem(&root, root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = authority(&format!("{name} below"))
        .signed_by(&key, &issuer)
        .unwrap()
        .pem();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "cacerts", "namespace": install::NAMESPACE},
        "stringData": {
            "ca-key.pem": key.serialize_pem(),
            "cert-chain.pem": format!("{certificate}{root}"),
            "ca-cert.pem": certificate,
            "root-cert.pem": format!("{root}{further_roots}"),
        },
    });
    (root, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugged_in_authority_is_used_and_may_be_replaced_by_one_that_shares_a_root() {
    let ground = Ground::new().await;
    let (first, secret) = plugged_in("first", "");
    ground.apply(&secret).await;
    let control = ground.replica("control", &[]).await;
    root_is(&ground, "the plugged-in root", |root| {
        root.trim() == first.trim()
    })
    .await;
    assert!(
        serves(&ground, &control, &first).await,
        "by the chain below its root"
    );
    assert_eq!(
        text(&ground, "culvert-ca", "ca-key.pem").await,
        None,
        "ours is not made"
    );
    // Nobody who has a certificate now would trust this one.
    let (_, foreign) = plugged_in("foreign", "");
    ground.apply(&foreign).await;
    let said = || {
        std::future::ready(
            control
                .program
                .said()
                .contains("an authority is refused")
                .then_some(()),
        )
    };
    until("the foreign authority is refused", PATIENCE, said)
        .await
        .unwrap();
    assert!(
        serves(&ground, &control, &first).await,
        "the one before goes on"
    );
    let (second, secret) = plugged_in("second", &first);
    ground.apply(&secret).await;
    root_is(&ground, "both roots", |root| {
        root.contains(first.trim()) && root.contains(second.trim())
    })
    .await;
    assert!(
        serves(&ground, &control, &second).await,
        "control's own certificate too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_rotated_with_both_trusted_in_between() {
    let ground = Ground::new().await;
    // A step lasts as long as the longest certificate: here the shortest that may be chosen, and the
    // steps are moved on by what the Secret says of their beginning.
    let short = [("MAX_WORKLOAD_CERT_TTL_SECONDS", "60")];
    let control = ground.replica("control", &short).await;
    let other = ground.replica("other", &short).await;
    let old = ground.root(install::NAMESPACE).await;
    annotate(&ground, "culvert.dev/rotate-root", "now").await;
    root_is(&ground, "both roots", |root| {
        root.contains(old.trim()) && root.trim() != old.trim()
    })
    .await;
    for replica in [&control, &other] {
        assert!(
            serves(&ground, replica, &old).await,
            "the old one still signs"
        );
    }
    let new = text(&ground, "culvert-ca", "next-ca-cert.pem")
        .await
        .unwrap();
    annotate(
        &ground,
        "culvert.dev/rotation-step-since",
        "2020-01-01T00:00:00Z",
    )
    .await;
    until("the new one signs", PATIENCE, || async {
        let signs = text(&ground, "culvert-ca", "ca-cert.pem").await?;
        (signs.trim() == new.trim()).then_some(())
    })
    .await
    .unwrap();
    for replica in [&control, &other] {
        until("each replica signs with it", PATIENCE, || async {
            serves(&ground, replica, &new).await.then_some(())
        })
        .await
        .unwrap();
    }
    root_is(&ground, "both roots", |root| {
        root.contains(old.trim()) && root.contains(new.trim())
    })
    .await;
    annotate(
        &ground,
        "culvert.dev/rotation-step-since",
        "2020-01-01T00:00:00Z",
    )
    .await;
    root_is(&ground, "the new root alone", |root| {
        root.trim() == new.trim()
    })
    .await;
}

async fn annotate(ground: &Ground, name: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {name: value}}});
    secrets(ground)
        .patch("culvert-ca", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_authority_is_put_back_as_it_was() {
    let ground = Ground::new().await;
    let control = ground.replica("control", &[]).await;
    leader(&[&control]).await;
    let root = ground.root(install::NAMESPACE).await;
    let key = text(&ground, "culvert-ca", "ca-key.pem").await;
    secrets(&ground)
        .delete("culvert-ca", &DeleteParams::default())
        .await
        .unwrap();
    until("it is put back", PATIENCE, || {
        text(&ground, "culvert-ca", "ca-key.pem")
    })
    .await
    .unwrap();
    assert_eq!(text(&ground, "culvert-ca", "ca-key.pem").await, key);
    // Whoever starts now has the same root.
    let late = ground.replica("late", &[]).await;
    assert!(serves(&ground, &late, &root).await);
}
