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
use crate::observe::{self, Hearing, Observation};
use crate::resources::Resources;
use crate::subject::{Kind, Subject};
use crate::theme::{Case, Theme};

/// Longest that a log line or a mirrored request may come after its answer.
const LATE: Duration = Duration::from_secs(3);

/// How many cases that don't build upon each other run at the same time.
const AT_ONCE: usize = 16;

/// How often a case that went wrong is heard in all, where cases don't build upon each other.
const HEARINGS: usize = 5;

/// How often it must be right then, without ours being wrong again.
const RIGHT: usize = 2;

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
    /// What was wrong at first, where it was right when it was heard again.
    pub unsteady: Vec<String>,
}

impl Verdict {
    /// Whether ours was wrong at first, and right when it was heard again.
    #[must_use]
    pub fn is_unsteady_of_ours(&self) -> bool {
        is_of_ours(&self.unsteady)
    }
}

/// Whether ours is among what is wrong. Where both differ and Envoy is as the case says, it is.
fn is_of_ours(wrong: &[String]) -> bool {
    let by = |kind: Kind| wrong.iter().any(|line| line.starts_with(kind.name()));
    by(Kind::Waypoint) || !(wrong.is_empty() || by(Kind::Envoy))
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

    /// Runs a theme's cases through every proxy. One that goes wrong is heard again, where cases don't
    /// build upon each other: a machine that stands still for a moment is no proxy's fault, and
    /// Envoy's own races are not ours.
    ///
    /// # Errors
    /// When a proxy's log can't be read.
    pub async fn hear(&self, theme: &Theme, accepted: &Accepted) -> Result<Vec<Verdict>> {
        let numbers = theme.cases.iter().enumerate();
        let each = numbers.flat_map(|(number, case)| {
            let over = theme.over(case).into_iter();
            over.map(move |over| Hearing {
                number,
                over,
                before: 0,
            })
        });
        let each: Vec<_> = each.collect();
        let mut verdicts = self.hear_these(theme, accepted, &each).await?;
        for (verdict, hearing) in verdicts.iter_mut().zip(each) {
            if verdict.wrong.is_empty() || theme.in_order {
                continue;
            }
            let mut rights = 0;
            for before in 1..HEARINGS {
                let again = Hearing { before, ..hearing };
                let again = self.hear_these(theme, accepted, &[again]).await?;
                let again = again.into_iter().flat_map(|verdict| verdict.wrong);
                match again.collect::<Vec<_>>() {
                    wrong if wrong.is_empty() => rights += 1,
                    wrong if is_of_ours(&wrong) => break,
                    _ => {}
                }
                if rights == RIGHT {
                    verdict.unsteady = std::mem::take(&mut verdict.wrong);
                    break;
                }
            }
        }
        Ok(verdicts)
    }

    async fn hear_these(
        &self,
        theme: &Theme,
        accepted: &Accepted,
        hearings: &[Hearing],
    ) -> Result<Vec<Verdict>> {
        let mut runs = Vec::new();
        for subject in self.subjects() {
            runs.push((subject.kind(), self.run(subject, theme, hearings).await?));
        }
        let judged = hearings.iter().enumerate().map(|(place, hearing)| {
            let observed = runs.iter().map(|(kind, run)| (*kind, &run[place][..]));
            self.judge(theme, *hearing, &observed.collect::<Vec<_>>(), accepted)
        });
        Ok(judged.collect())
    }

    fn judge(
        &self,
        theme: &Theme,
        hearing: Hearing,
        observed: &[(Kind, &[Observation])],
        accepted: &Accepted,
    ) -> Verdict {
        let case = &theme.cases[hearing.number];
        let mut wrong = Vec::new();
        let alone = observed.len() == 2 && self.is_no_oracle(case, observed[0].1);
        for (kind, observed) in observed.iter().skip(usize::from(alone)) {
            let found = case.expect_of(*kind).check(observed);
            wrong.extend(found.into_iter().map(|w| format!("{}: {w}", kind.name())));
        }
        if let ([(_, envoy), (_, ours)], false) = (observed, alone) {
            let title = format!("{}/{}", theme.name, case.title());
            wrong.extend(compare(&title, case, envoy, ours, accepted));
        }
        let (name, title, over) = (&theme.name, case.title(), hearing.over.name());
        Verdict {
            alone,
            title: format!("{name}: {title} ({over})"),
            wrong,
            shown: observed
                .iter()
                .flat_map(|(kind, run)| run.iter().map(move |o| show(*kind, o)))
                .collect(),
            unsteady: Vec::new(),
        }
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
        hearings: &[Hearing],
    ) -> Result<Vec<Vec<Observation>>> {
        let each = hearings.iter().map(|h| observe::send(subject, theme, *h));
        let at_once = if theme.in_order { 1 } else { AT_ONCE };
        let mut all: Vec<_> = futures_util::stream::iter(each)
            .buffered(at_once)
            .collect()
            .await;
        let mut every: Vec<_> = all.iter_mut().flatten().collect();
        observe::add_log(subject, &theme.name, &mut every, LATE).await?;
        for (hearing, observed) in hearings.iter().zip(&mut all) {
            let expect = &theme.cases[hearing.number].expect;
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
