//! What is written down, and who called, where that is not a table's: the CONNECTs of tunnels beside
//! Envoy's own lines about them, the hash of a tunnel's peer in `x-forwarded-client-cert`, and logs
//! that are opened again after somebody moved them away.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use lab::patience;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oracle::backend::Journal;
use oracle::resources::Resources;
use oracle::run::{Proxies, Way, proxies};
use oracle::subject::{Kind, Subject};
use oracle::theme;
use oracle::wire::{Answer, Ask, Caller, Over};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PORT: u16 = 20_500;
/// A port of the service that no filter chain is for.
const NOBODY: u16 = 20_501;
const PATIENCE: Duration = Duration::from_secs(20);

/// One listener and one backend; the client's certificate is told to it as far as it is known.
const THEME: &str = r"
about: one way through
clusters: {a: {}}
hcm: {forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {uri: true}}
routes:
- {match: {prefix: /}, route: {cluster: $a}}
cases: []
";

/// A line for each CONNECT.
fn of_connects() -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"json_format": {
                "tunnel": "%REQ(:AUTHORITY)%",
                "method": "%REQ(:METHOD)%",
                "protocol": "%PROTOCOL%",
                "code": "%RESPONSE_CODE%",
                "flags": "%RESPONSE_FLAGS%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "cluster": "%UPSTREAM_CLUSTER_RAW%",
                "peer": "%DOWNSTREAM_PEER_URI_SAN%",
                "received": "%BYTES_RECEIVED%",
                "sent": "%BYTES_SENT%",
            }},
        },
    })
}

async fn resources(journal: &Arc<Journal>, scratch: &Path) -> Result<Resources> {
    let path = scratch.join("logs.yaml");
    fs::write(&path, THEME)?;
    theme::read(&path, PORT)?.resources(journal).await
}

/// Proxies behind tunnels, whose CONNECTs are written down.
async fn tunnelled(kinds: &[Kind], journal: &Arc<Journal>, scratch: &Path) -> Result<Proxies> {
    let mut resources = resources(journal, scratch).await?;
    resources.tunnel_logs.push(of_connects());
    proxies(resources, &[PORT, NOBODY], kinds, Way::Tunnel, scratch).await
}

/// One call on a connection of its own, which ends with it.
async fn call(subject: &Subject, port: u16, case: &str, body: &str) -> Result<Answer> {
    let mut caller = Caller::connect(subject.door(port), Over::H1).await?;
    let ask = Ask {
        method: Method::POST,
        body: vec![Bytes::copy_from_slice(body.as_bytes())],
        headers: vec![("x-case".to_owned(), case.to_owned())],
        ..Ask::get("logs.local", "/")
    };
    caller.ask(&ask).await
}

/// The line about a tunnel to this port.
async fn line(subject: &Subject, port: u16) -> Result<Value> {
    let what = format!(
        "{}'s line about the tunnel to {port}",
        subject.kind().name()
    );
    let ending = format!(":{port}");
    let found = patience::some(&what, PATIENCE, async || {
        let lines = subject.access_log().ok()?;
        let of = |line: &Value| {
            line["tunnel"]
                .as_str()
                .is_some_and(|to| to.ends_with(&ending))
        };
        lines.into_iter().find(of)
    });
    found.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_are_written_down_as_envoy_writes_them() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let journal = Arc::default();
    let both = [Kind::Envoy, Kind::Waypoint];
    let proxies = tunnelled(&both, &journal, scratch.path()).await?;
    let mut lines = Vec::new();
    for subject in &proxies.subjects {
        let answer = call(subject, PORT, "through", "nine byte").await?;
        ensure!(answer.status == 200, "{answer:?}");
        lines.push(line(subject, PORT).await?);
    }
    let [envoys, ours] = lines.as_slice() else {
        anyhow::bail!("not two lines: {lines:?}");
    };
    for field in [
        "tunnel", "method", "protocol", "code", "flags", "details", "cluster", "peer", "received",
    ] {
        ensure!(envoys[field] == ours[field], "{field}: {envoys} and {ours}");
    }
    ensure!(ours["method"] == "CONNECT" && ours["code"] == 200, "{ours}");
    let peer = ours["peer"].as_str().context("the peer")?;
    ensure!(peer.ends_with("/sa/productpage"), "{peer}");
    for line in &lines {
        // A head and a body each way.
        ensure!(line["received"].as_u64() > Some(60), "{line}");
        ensure!(line["sent"].as_u64() > Some(60), "{line}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_for_a_port_that_nobody_serves_is_written_down() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let journal = Arc::default();
    let proxies = tunnelled(&[Kind::Waypoint], &journal, scratch.path()).await?;
    let subject = &proxies.subjects[0];
    let refused = call(subject, NOBODY, "refused", "").await;
    ensure!(refused.is_err(), "somebody answered: {refused:?}");
    let line = line(subject, NOBODY).await?;
    ensure!(line["code"] == 404 && line["flags"] == "NR", "{line}");
    ensure!(line["details"] == "filter_chain_not_found", "{line}");
    ensure!(line["received"] == 0 && line["sent"] == 0, "{line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_is_told_the_hash_of_the_tunnels_peer() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let journal = Arc::default();
    let proxies = tunnelled(&[Kind::Waypoint], &journal, scratch.path()).await?;
    let answer = call(&proxies.subjects[0], PORT, "told", "").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let seen = journal.of("told");
    let headers = &seen.first().context("the backend saw nothing")?.headers;
    let told = headers.iter().find(|(n, _)| n == "x-forwarded-client-cert");
    let (_, told) = told.context("no x-forwarded-client-cert")?;
    // The certificate that the caller's end of tunnels was issued.
    let issued = fs::read(scratch.path().join("identities/productpage.pem"))?;
    let hash = Sha256::digest(CertificateDer::from_pem_slice(&issued)?);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let account = "spiffe://cluster.local/ns/bookinfo/sa";
    let expected = format!("By={account}/waypoint;Hash={hash};URI={account}/productpage");
    ensure!(*told == expected, "{told}, not {expected}");
    Ok(())
}

/// How somebody who moved a log away has it opened again.
#[derive(Clone, Copy, Debug)]
enum Reopen {
    Signal(Signal),
    Admin,
}

impl Reopen {
    async fn ask(self, subject: &Subject) -> Result<()> {
        match self {
            Self::Signal(signal) => {
                let pid = Pid::from_raw(i32::try_from(subject.pid())?);
                kill(pid, signal).context("the waypoint is gone")
            }
            Self::Admin => {
                let at = subject.admin();
                let mut caller = Caller::connect(at, Over::H1).await?;
                let ask = Ask {
                    method: Method::POST,
                    ..Ask::get(&at.to_string(), "/reopen_logs")
                };
                let answer = caller.ask(&ask).await?;
                ensure!(answer.status == 200, "{answer:?}");
                Ok(())
            }
        }
    }
}

/// Waits until a file has a line about a case.
async fn lines_of(path: &Path, case: &str) -> Result<()> {
    let what = format!("a line about {case} in {}", path.display());
    let written = || fs::read_to_string(path).is_ok_and(|text| text.contains(case));
    patience::until(&what, PATIENCE, written).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_opened_again_by_signals_and_by_word() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let journal = Arc::default();
    let log = scratch.path().join("a.log");
    let mut resources = resources(&journal, scratch.path()).await?;
    let manager = &mut resources.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"];
    manager["access_log"][0]["typed_config"]["path"] = log.display().to_string().into();
    let subject = Subject::start(Kind::Waypoint, &resources, scratch.path(), 2).await?;
    call(&subject, PORT, "at-first", "").await?;
    lines_of(&log, "at-first").await?;
    for (number, reopen) in [
        Reopen::Signal(Signal::SIGUSR1),
        Reopen::Signal(Signal::SIGHUP),
        Reopen::Admin,
    ]
    .into_iter()
    .enumerate()
    {
        let moved: PathBuf = scratch.path().join(format!("a.log.{number}"));
        fs::rename(&log, &moved)?;
        // Nobody has asked yet: the file is the same one under another name.
        let before = format!("before-{number}");
        call(&subject, PORT, &before, "").await?;
        lines_of(&moved, &before).await?;
        ensure!(
            !log.exists(),
            "{reopen:?}: opened again before it was asked for"
        );
        reopen.ask(&subject).await?;
        // A signal is heard a moment later, and until then lines go where they went.
        let after = format!("after-{number}");
        let what = format!("a new log after {reopen:?}");
        patience::some(&what, PATIENCE, async || {
            let answer = call(&subject, PORT, &after, "").await;
            (answer.is_ok_and(|a| a.status == 200) && log.exists()).then_some(())
        })
        .await?;
        lines_of(&log, &after).await?;
        ensure!(subject.ended().is_none(), "{reopen:?} ended it");
    }
    Ok(())
}
