//! The stories of the routing APIs behind a waypoint: S6, S10, S15 and S17, the same by the Gateway API,
//! and a rule that is wrong. The demo tells the first four, the tests run all; they leave no rule behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bookstore::{self, NAMESPACE, PAGE};
use crate::load::{Load, Outcomes};
use crate::mesh::IN_FORCE;
use crate::stage::Stage;
use crate::until::until;

/// A request that reviews answers by itself, with the name of its pod.
pub const REVIEWS: &str = "http://reviews:9080/reviews/0";
/// Cookies of somebody who has logged in as jason.
const JASON: &str = "cookie: theme=dark;user=jason;lang=en";
/// Requests of S6; how many of them v1 shall answer, and three standard deviations of that,
/// √(1000 · 0.9 · 0.1) = 9.5.
const SPLIT: (u32, u64, u64) = (1000, 900, 28);
/// Requests of each of the two loads of S15, and the time between two changes.
const UNDER_CHANGE: (u64, Duration) = (5000, Duration::from_millis(500));

/// S6: 1,000 requests are split as told, within three standard deviations.
///
/// # Errors
/// When they are not.
pub fn s6(stage: &Stage) -> Result<()> {
    rules(stage, &["reviews-subsets", "reviews-90-10"], "v3")?;
    let (count, expected, deviation) = SPLIT;
    let outcomes = reviews(stage, count, None)?;
    let (v1, v2) = (version(&outcomes, 1), version(&outcomes, 2));
    ensure!(
        v1 + v2 == u64::from(count),
        "not all by v1 and v2: {outcomes}"
    );
    ensure!(
        v1.abs_diff(expected) <= deviation,
        "{v1} of {count} by v1: {outcomes}"
    );
    stage.narrator().evidence(&format!(
        "of {count} requests {v1} were answered by v1, {v2} by v2"
    ));
    no_rules(stage)
}

/// S10: the cookie chooses.
///
/// # Errors
/// When anybody is answered by a version that is not theirs.
pub fn s10(stage: &Stage) -> Result<()> {
    rules(stage, &["reviews-subsets", "reviews-jason"], "v3")?;
    let jason = reviews(stage, 200, Some(JASON))?;
    ensure!(version(&jason, 2) == 200, "jason: {jason}");
    stage.narrator().evidence(&format!(
        "with {JASON:?} all of 200 requests were answered by v2"
    ));
    for other in [
        None,
        Some("cookie: user=jasonx"),
        Some("cookie: xuser=jason"),
    ] {
        let others = reviews(stage, 100, other)?;
        ensure!(version(&others, 1) == 100, "{other:?}: {others}");
        stage.narrator().evidence(&format!(
            "with {} all of 100 by v1",
            other.map_or("no cookie".to_owned(), |cookie| format!("{cookie:?}"))
        ));
    }
    no_rules(stage)
}

/// S17: with every service in its first version no page shows stars.
///
/// # Errors
/// When a page shows stars, or another version answers.
pub fn s17(stage: &Stage) -> Result<()> {
    rules(stage, &["all-v1"], "v2")?;
    for _ in 0..30 {
        let (status, page) = bookstore::answer_quietly(stage, "sleep", &[PAGE])?;
        ensure!(status == 200, "{status}: {page}");
        ensure!(
            !page.contains('★') && !page.contains("glyphicon-star"),
            "stars: {page}"
        );
    }
    let outcomes = reviews(stage, 100, None)?;
    ensure!(version(&outcomes, 1) == 100, "{outcomes}");
    stage.narrator().evidence(
        "30 product pages without a star; all of 100 requests for reviews answered by v1",
    );
    no_rules(stage)
}

/// S15: rules change twice a second under 10,000 requests. Jason's always lead to v2, everybody
/// else's now to v1, now to v3: not one fails, and not one goes astray.
///
/// # Errors
/// When one fails or goes astray, or the changes did not show.
pub fn s15(stage: &Stage) -> Result<()> {
    rules(stage, &["reviews-subsets", "reviews-jason"], "v3")?;
    let (count, pause) = UNDER_CHANGE;
    let each = count.to_string();
    let words = |more: &[&'static str]| -> Vec<String> {
        let all = [REVIEWS, "--count", &each, "--parallel", "4", "--pause", "0"];
        let rest = ["--keep", "--member", "podname"];
        let all = all.into_iter().chain(rest).chain(more.iter().copied());
        all.map(str::to_owned).collect()
    };
    let start = |from, more: &[&'static str]| {
        let words = words(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Load::start(stage, from, &words)
    };
    let mut jason = start("sleep", &["-H", JASON])?;
    let mut others = start("notsleep", &[])?;
    stage.narrator().say(
        "  10,000 requests, half of them jason's; meanwhile, twice a second, the other rule of\n  \
         VirtualService reviews is patched to lead to v3, to v1, to v3, …",
    );
    let (mut to, mut changes) = (3, 0);
    let mut next = Instant::now();
    while jason.runs() || others.runs() {
        let rule = format!(
            r#"[{{"op":"replace","path":"/spec/http/1/route/0/destination/subset","value":"v{to}"}}]"#
        );
        stage.look(&[
            "patch",
            "virtualservice",
            "reviews",
            "--type=json",
            "-p",
            &rule,
        ])?;
        (to, changes) = (4 - to, changes + 1);
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let (jason, others) = (jason.finish()?, others.finish()?);
    ensure!(
        version(&jason, 2) == count,
        "jason, after {changes} changes: {jason}"
    );
    let (v1, v3) = (version(&others, 1), version(&others, 3));
    ensure!(
        v1 + v3 == count,
        "others, after {changes} changes: {others}"
    );
    ensure!(
        v1 > 0 && v3 > 0 && changes >= 4,
        "{changes} changes did not show: {others}"
    );
    stage.narrator().evidence(&format!(
        "{changes} changes, no request failed: jason's {count} by v2, the others' {v1} by v1 and {v3} by v3"
    ));
    no_rules(stage)
}

/// S6 and S10 in the words of the Gateway API: an HTTPRoute at the service reviews chooses by cookie and
/// splits, and its status says that it was accepted.
///
/// # Errors
/// When a request goes astray, or the status says something else.
pub fn http_route(stage: &Stage) -> Result<()> {
    const MANIFEST: &str = "reviews-http-route";
    rules(stage, &[MANIFEST], "v3")?;
    until("the HTTPRoute's status", IN_FORCE, || {
        let route = stage.get(&["httproute", "reviews", "-n", NAMESPACE])?;
        let conditions = &route["status"]["parents"][0]["conditions"];
        for wanted in ["Accepted", "ResolvedRefs"] {
            let fine = conditions
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == wanted && condition["status"] == "True");
            ensure!(fine, "not {wanted}: {}", route["status"]);
        }
        Ok(())
    })?;
    let jason = reviews(stage, 200, Some(JASON))?;
    ensure!(version(&jason, 2) == 200, "jason: {jason}");
    let (count, expected, deviation) = SPLIT;
    let others = reviews(stage, count, None)?;
    let v1 = version(&others, 1);
    ensure!(
        v1 + version(&others, 2) == u64::from(count) && v1.abs_diff(expected) <= deviation,
        "others: {others}"
    );
    stage.delete(MANIFEST)?;
    no_rules(stage)
}

/// A rule that can't be right is refused with its name and the reason, at admission or in its status,
/// and the one before it stays in force.
///
/// # Errors
/// When it is accepted, nobody says why not, or the one before is lost.
pub fn wrong_rule(stage: &Stage) -> Result<()> {
    const WRONG: &str = r#"[{"op":"replace","path":"/spec/http/0/match/0/headers/cookie/regex","value":"user=(jason"}]"#;
    rules(stage, &["reviews-subsets", "reviews-jason"], "v3")?;
    let words = [
        "patch",
        "virtualservice",
        "reviews",
        "--type=json",
        "-p",
        WRONG,
    ];
    let patched = stage.try_kubectl(&words)?;
    if patched.code == Some(0) {
        until("the refusal in the status", IN_FORCE, || {
            let rule = stage.get(&["virtualservice", "reviews", "-n", NAMESPACE])?;
            let mut conditions = rule["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let refused = conditions.any(|condition| {
                condition["status"] == "False"
                    && condition["message"]
                        .as_str()
                        .is_some_and(|why| why.contains("regex"))
            });
            ensure!(refused, "its status: {}", rule["status"]);
            Ok(())
        })?;
    } else {
        ensure!(
            patched.stderr.contains("regex"),
            "refused with {}",
            patched.stderr
        );
    }
    let jason = reviews(stage, 100, Some(JASON))?;
    ensure!(
        version(&jason, 2) == 100,
        "the rule before is lost: {jason}"
    );
    let others = reviews(stage, 100, None)?;
    ensure!(
        version(&others, 1) == 100,
        "the rule before is lost: {others}"
    );
    no_rules(stage)
}

/// Applies rules, and waits until none of 40 requests is answered by a version that they exclude.
///
/// # Errors
/// When it does not come to that.
pub fn rules(stage: &Stage, manifests: &[&str], excluded: &str) -> Result<()> {
    for manifest in manifests {
        stage.apply(manifest)?;
    }
    until("the rules in force", IN_FORCE, || {
        let outcomes = reviews(stage, 40, None)?;
        let astray = outcomes.of_kind(&format!("200 reviews-{excluded}"));
        ensure!(astray == 0, "{outcomes}");
        Ok(())
    })
}

/// Takes all rules away, and waits until each version answers again.
///
/// # Errors
/// When it does not come to that.
pub fn no_rules(stage: &Stage) -> Result<()> {
    let all = ["virtualservice,destinationrule", "--all", "-n", NAMESPACE];
    stage.kubectl(&[&["delete"], all.as_slice()].concat())?;
    until("no rules in force", IN_FORCE, || {
        let outcomes = reviews(stage, 40, None)?;
        let each = [1, 2, 3].map(|n| version(&outcomes, n));
        ensure!(each.iter().all(|count| *count > 0), "{outcomes}");
        Ok(())
    })
}

/// So many requests for reviews, and by which pods they were answered.
///
/// # Errors
/// When they can't be made.
pub fn reviews(stage: &Stage, count: u32, header: Option<&str>) -> Result<Outcomes> {
    let count = count.to_string();
    let mut words = vec![
        REVIEWS, "--count", &count, "--pause", "0", "--member", "podname",
    ];
    if let Some(header) = header {
        words.extend(["-H", header]);
    }
    Load::run(stage, "sleep", &words).context("requests for reviews")
}

/// How many answers were of this version of reviews.
#[must_use]
pub fn version(outcomes: &Outcomes, version: u8) -> u64 {
    outcomes.of_kind(&format!("200 reviews-v{version}-"))
}
