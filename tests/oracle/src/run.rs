//! Runs the tables: one Envoy and one waypoint with the resources of all themes, every case through
//! both, and a verdict for each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;

use crate::ads::Ads;
use crate::backend::Journal;
use crate::differ::Accepted;
use crate::graph;
use crate::identity::Folder;
use crate::observe::{self, Observation};
use crate::resources::Resources;
use crate::subject::{Kind, Subject};
use crate::theme::{Case, Theme};
use crate::wire::Over;

/// Longest that a log line or a mirrored request may come after its answer.
const LATE: Duration = Duration::from_secs(3);

/// How many cases that don't build upon each other run at the same time.
const AT_ONCE: usize = 16;

/// How cases reach the proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each theme is a listener of its own.
    Plain,
    /// Each theme is a filter chain of `main_internal`, in the graph that istiod gives a waypoint, and
    /// its callers come in CONNECT tunnels over mutual TLS.
    Tunnel,
}

impl Way {
    /// `plain` or `tunnel`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Running proxies, and the control plane that they follow in a mesh.
#[derive(Debug)]
pub struct Proxies {
    /// One for each kind that was asked for.
    pub subjects: Vec<Subject>,
    _ads: Option<Ads>,
}

/// Starts proxies with resources of ordinary listeners on `ports`, for callers who come this way to
/// [`Subject::door`].
///
/// # Errors
/// When one of them can't start.
pub async fn proxies(
    resources: Resources,
    ports: &[u16],
    kinds: &[Kind],
    way: Way,
    scratch: &Path,
) -> Result<Proxies> {
    let mut subjects = Vec::new();
    let ads = match way {
        Way::Plain => {
            for kind in kinds {
                subjects.push(Subject::start(*kind, &resources, scratch, 1).await?);
            }
            None
        }
        Way::Tunnel => {
            let ads = Ads::start().await?;
            let identities = Folder::make(&scratch.join("identities"), &ads.authority)?;
            let resources = graph::around(resources, &identities)?;
            for kind in kinds {
                let subject = Subject::in_a_mesh(*kind, &resources, &ads, scratch).await?;
                subjects.push(subject.behind_tunnels(ports, &identities).await?);
            }
            Some(ads)
        }
    };
    Ok(Proxies {
        subjects,
        _ads: ads,
    })
}

/// A case over one protocol.
#[derive(Debug)]
pub struct Verdict {
    /// `theme: title (h1)`.
    pub title: String,
    /// What is wrong, and with whom; empty when it passed.
    pub wrong: Vec<String>,
    /// What each proxy did, in a line.
    pub shown: Vec<String>,
    /// Only ours was judged.
    pub alone: bool,
}

/// Both proxies with every theme's resources.
#[derive(Debug)]
pub struct Court {
    journal: Arc<Journal>,
    proxies: Proxies,
    way: Way,
}

impl Court {
    /// Starts backends and proxies.
    ///
    /// # Errors
    /// When one of them can't start.
    pub async fn open(themes: &[Theme], kinds: &[Kind], way: Way, scratch: &Path) -> Result<Self> {
        let journal = Arc::new(Journal::default());
        let mut resources = Resources::default();
        for theme in themes {
            resources.extend(theme.resources(&journal).await?);
        }
        let ports: Vec<u16> = themes.iter().map(|theme| theme.port).collect();
        let proxies = proxies(resources, &ports, kinds, way, scratch).await?;
        Ok(Self {
            journal,
            proxies,
            way,
        })
    }

    /// The proxies.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.proxies.subjects
    }

    /// Runs a theme's cases through every proxy.
    ///
    /// # Errors
    /// When a proxy's log can't be read.
    pub async fn hear(&self, theme: &Theme, accepted: &Accepted) -> Result<Vec<Verdict>> {
        let mut runs = Vec::new();
        for subject in self.subjects() {
            runs.push((subject.kind(), self.run(subject, theme).await?));
        }
        let mut verdicts = Vec::new();
        let (_, first) = &runs[0];
        for (place, (number, over, _)) in first.iter().enumerate() {
            let case = &theme.cases[*number];
            let mut wrong = Vec::new();
            let alone = runs.len() == 2 && self.is_no_oracle(case, &runs[0].1[place].2);
            for (kind, run) in runs.iter().skip(usize::from(alone)) {
                let found = case.expect_of(*kind).check(&run[place].2);
                wrong.extend(found.into_iter().map(|w| format!("{}: {w}", kind.name())));
            }
            if let ([(_, envoy), (_, ours)], false) = (runs.as_slice(), alone) {
                let title = format!("{}/{}", theme.name, case.title());
                let (envoy, ours) = (&envoy[place].2, &ours[place].2);
                wrong.extend(compare(&title, case, envoy, ours, accepted));
            }
            let (name, title, over) = (&theme.name, case.title(), over.name());
            verdicts.push(Verdict {
                alone,
                title: format!("{name}: {title} ({over})"),
                wrong,
                shown: runs
                    .iter()
                    .flat_map(|(kind, run)| run[place].2.iter().map(move |o| show(*kind, o)))
                    .collect(),
            });
        }
        Ok(verdicts)
    }

    /// Whether Envoy can't tell what is right. Behind the end of its tunnels it closes connections
    /// before what it wrote last has left it, so that now and then what it answers last is lost; what
    /// it does plainly, and each case says, counts there.
    fn is_no_oracle(&self, case: &Case, envoy: &[Observation]) -> bool {
        let does_otherwise = || !case.expect_of(Kind::Envoy).check(envoy).is_empty();
        self.way == Way::Tunnel && (case.alone_in_tunnel.is_some() || does_otherwise())
    }

    async fn run(
        &self,
        subject: &Subject,
        theme: &Theme,
    ) -> Result<Vec<(usize, Over, Vec<Observation>)>> {
        let cases = theme.cases.iter().enumerate();
        let each = cases.flat_map(|(number, case)| {
            let over = theme.over(case).into_iter();
            over.map(move |over| async move {
                let observed = observe::send(subject, theme, number, over, case).await;
                (number, over, observed)
            })
        });
        let at_once = if theme.in_order { 1 } else { AT_ONCE };
        let mut all: Vec<_> = futures_util::stream::iter(each)
            .buffered(at_once)
            .collect()
            .await;
        let mut every: Vec<_> = all.iter_mut().flat_map(|(_, _, o)| o).collect();
        observe::add_log(subject, &theme.name, &mut every, LATE).await?;
        for (number, _, observed) in &mut all {
            let expect = &theme.cases[*number].expect;
            let wanted: usize = expect.mirrored.values().sum();
            let come = || {
                observed.iter().all(|o| {
                    let seen = self.journal.of(&o.id);
                    let whole = |(at, bytes): (&String, &usize)| {
                        let mut there = seen.iter().filter(|s| s.cluster == *at);
                        there.any(|s| s.body.len() >= *bytes)
                    };
                    seen.len() >= wanted && expect.bytes_at.iter().all(whole)
                })
            };
            // A mirrored request that never comes is told by the check.
            let _ = lab::patience::until("mirrored requests", LATE, come).await;
            for one in observed {
                one.seen = self.journal.of(&one.id);
            }
        }
        Ok(all)
    }
}

/// Chance (a spread, a share, parallel requests) is judged by its expectation only.
fn compare(
    title: &str,
    case: &Case,
    envoy: &[Observation],
    ours: &[Observation],
    accepted: &Accepted,
) -> Vec<String> {
    if case.ours.is_some() {
        return Vec::new();
    }
    let by_chance = case.by_chance
        || case.parallel
        || case.expect.spread.is_some()
        || case.expect.shares.is_some();
    if by_chance {
        return Vec::new();
    }
    let pairs = envoy.iter().zip(ours);
    let mut found = pairs.map(|(envoy, ours)| accepted.differences(title, envoy, ours));
    let first = found.find(|differences| !differences.is_empty());
    let told = |value: Option<String>| value.map_or("nothing".into(), |v| format!("{v:?}"));
    first
        .unwrap_or_default()
        .into_iter()
        .map(|d| {
            format!(
                "{}: envoy {}, ours {}",
                d.field,
                told(d.envoy),
                told(d.ours)
            )
        })
        .collect()
}

fn show(kind: Kind, one: &Observation) -> String {
    let logged = |field| one.logged(field).unwrap_or_else(|| "?".to_owned());
    let hops: Vec<_> = one.seen.iter().map(|s| s.cluster.as_str()).collect();
    format!(
        "{:<8} {:?} {} {} hops {:?}{}{} {:?}",
        kind.name(),
        one.statuses,
        logged("flags"),
        logged("details"),
        hops,
        if one.closed { " closed" } else { "" },
        one.error
            .iter()
            .map(|e| format!(" error {e}"))
            .collect::<String>(),
        one.body.chars().take(60).collect::<String>()
    )
}
