//! Every case of h2spec (RFC 9113 and HPACK) against our waypoint, with prior knowledge: its plain
//! listener, and a chain behind the end of its tunnels, which h2spec reaches through a CONNECT of each
//! connection. Envoy runs beside it, so that a case which both fail is told from one of ours.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use oracle::backend::Journal;
use oracle::program;
use oracle::run::{self, Way};
use oracle::subject::{Kind, Subject};
use oracle::theme;
use serde::Deserialize;
use tokio::process::Command;

/// How many cases this version of h2spec has; fewer would mean that it broke off.
const CASES: usize = 140;
const PORT: u16 = 20_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    case: String,
    reason: String,
}

/// What h2spec said.
struct Report {
    summary: String,
    total: usize,
    failed: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_plain_listener_passes_h2spec() -> Result<()> {
    passes(Way::Plain).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_tunnels_lead_to_passes_h2spec() -> Result<()> {
    passes(Way::Tunnel).await
}

async fn passes(way: Way) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(here.join("h2spec-allowed.yaml"))?;
    let allowed: Vec<Allowed> = serde_yaml_ng::from_str(&text)?;
    let scratch = tempfile::tempdir()?;
    let journal = Arc::new(Journal::default());
    let theme = theme::read(&here.join("edge.yaml"), PORT)?;
    let resources = theme.resources(&journal).await?;
    let kinds = [Kind::Envoy, Kind::Waypoint];
    let proxies = run::proxies(resources, &[PORT], &kinds, way, scratch.path()).await?;
    let [envoy, ours] = &proxies.subjects[..] else {
        bail!("two proxies");
    };
    let (envoy, ours) =
        tokio::try_join!(report(envoy, scratch.path()), report(ours, scratch.path()))?;
    println!("envoy:    {}", envoy.summary);
    envoy
        .failed
        .iter()
        .for_each(|case| println!("  fails {case}"));
    println!("waypoint: {}", ours.summary);
    ours.failed
        .iter()
        .for_each(|case| println!("  fails {case}"));

    ensure!(ours.total >= CASES, "only {} cases ran", ours.total);
    for Allowed { case, reason } in &allowed {
        ensure!(
            ours.failed.contains(case),
            "{case} passes: {reason:?} is out of date"
        );
    }
    let allowed: BTreeSet<_> = allowed.into_iter().map(|a| a.case).collect();
    let wrong: Vec<_> = ours.failed.difference(&allowed).collect();
    ensure!(wrong.is_empty(), "{} cases fail: {wrong:#?}", wrong.len());
    Ok(())
}

async fn report(subject: &Subject, scratch: &Path) -> Result<Report> {
    let (kind, at) = (subject.kind(), subject.door(PORT));
    let junit = scratch.join(format!("{}.xml", kind.name()));
    let output = Command::new(program::h2spec()?)
        .args([
            "--host",
            &at.ip().to_string(),
            "--port",
            &at.port().to_string(),
        ])
        .args(["--timeout", "1", "--junit-report"])
        .arg(&junit)
        .kill_on_drop(true)
        .output()
        .await?;
    if let Some(how) = subject.ended() {
        bail!("{} ended under h2spec: {how}", kind.name());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said.lines().rev().find(|line| line.contains("tests,"));
    let text = std::fs::read_to_string(&junit).with_context(|| format!("h2spec: {said}"))?;
    Ok(Report {
        summary: summary.unwrap_or("no summary").to_owned(),
        total: text.matches("<testcase ").count(),
        failed: failures(&text),
    })
}

/// `package: name` of each test case with a failure.
fn failures(junit: &str) -> BTreeSet<String> {
    let cases = junit.split("<testcase ").skip(1);
    let failed = cases.filter(|case| {
        let own = case.split("</testcase>").next().unwrap_or(case);
        own.contains("<failure") || own.contains("<error")
    });
    failed
        .map(|case| {
            format!(
                "{}: {}",
                attribute(case, "package"),
                attribute(case, "classname")
            )
        })
        .collect()
}

fn attribute(element: &str, name: &str) -> String {
    let after = element.split(&format!("{name}=\"")).nth(1);
    let value = after.and_then(|rest| rest.split('"').next());
    value
        .unwrap_or_default()
        .replace("&#39;", "'")
        .replace("&#34;", "\"")
}

#[test]
fn failures_are_read_from_junit() {
    let text = r#"<testcase package="http2/5.1" classname="Sends &#39;x&#39;" time="1"></testcase>
        <testcase package="http2/6" classname="Other" time="1"><failure>no</failure></testcase>"#;
    let found: Vec<_> = failures(text).into_iter().collect();
    assert_eq!(found, ["http2/6: Other"]);
}
