//! What our waypoint costs beside Envoy and beside no proxy, measured in one run: the subjects take
//! turns within each round, so that a noisy machine is noisy for all, and what is told is the median
//! of the rounds' ratios.

pub mod load;
pub mod plan;
pub mod process;
mod report;
mod scale;
pub mod serve;
pub mod setup;
mod tunnel;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use report::Report;

use crate::ads::Ads;
use crate::identity::Folder;
use crate::subject::Kind;
use plan::{Measure, Result as Measured, Tunnel};
use process::{Agent, Resident};
use setup::Way;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which rows of the table.
    pub rows: Vec<Measure>,
    /// How many rounds; none where only memory counts.
    pub rounds: usize,
    /// How long one measurement takes.
    pub time: Duration,
    /// Whether the large configuration is measured too.
    pub scale: bool,
}

/// One measurement of one subject in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) measure: Measure,
    /// None for no proxy.
    pub(crate) of: Option<Kind>,
    pub(crate) told: Measured,
    /// Processor microseconds of the proxy for each request (or message).
    pub(crate) cpu: f64,
}

/// Runs everything; `progress` is told what happens. Needs a scratch folder.
///
/// # Errors
/// When a proxy doesn't start, or a measurement breaks.
pub async fn run(
    settings: Settings,
    kinds: &[Kind],
    scratch: &Path,
    progress: impl Fn(&str),
) -> Result<Report> {
    progress("starting the server, the load and the proxies");
    // Our waypoint gets everything by ADS and its certificate from the authority, as in a mesh.
    let ads = Ads::start().await?;
    let identities = Folder::make(&scratch.join("identities"), &ads.authority)?;
    let agent = Agent::start(&["serve", &identities.0.to_string_lossy()])?;
    let server = serve::Ports::of(&agent).await?;
    let ways = setup::ways(&server, &ads, &identities, kinds, scratch).await?;
    let idle: Vec<_> = memory(&ways)?;
    let mut samples = Vec::new();
    // The first time through everything is cold: pools, page cache, branch predictors. Without rounds
    // it is the load after which memory is looked at.
    progress("warming up");
    let cold = match settings.rounds {
        0 => settings.time,
        _ => settings.time / 5,
    };
    for way in &ways {
        for &measure in &settings.rows {
            one(way, &identities, measure, cold).await?;
        }
    }
    for round in 1..=settings.rounds {
        progress(&format!("round {round} of {}", settings.rounds));
        for &measure in &settings.rows {
            for way in &ways {
                samples.push(one(way, &identities, measure, settings.time).await?);
            }
        }
    }
    tokio::time::sleep(process::REST).await;
    let after = memory(&ways)?;
    drop(ways);
    let scale = if settings.scale {
        progress("the large configuration");
        scale::measure(kinds, &server, scratch).await?
    } else {
        Vec::new()
    };
    Ok(Report::new(settings, samples, idle, after, scale))
}

async fn one(way: &Way, identities: &Folder, measure: Measure, time: Duration) -> Result<Sample> {
    let name = way.name();
    let tunnel = Tunnel {
        identities: identities.0.clone(),
        authority: way.authority(),
    };
    let order = measure.order(way.target(measure), tunnel, time);
    let before = way.usage()?;
    let told = process::load(&order)
        .await
        .with_context(|| format!("{name}: {measure:?}"))?;
    ensure!(
        told.failures * 100 <= told.requests,
        "{name}: {measure:?}: {} of {} requests failed",
        told.failures,
        told.failures + told.requests
    );
    let spent = way.usage()?.since(&before);
    Ok(Sample {
        measure,
        of: way.kind(),
        cpu: spent.as_secs_f64() * 1e6 / told.requests.max(1) as f64,
        told,
    })
}

/// What is resident of each proxy.
fn memory(ways: &[Way]) -> Result<Vec<(Kind, Resident)>> {
    ways.iter()
        .filter_map(|way| Some((way.kind()?, way.usage())))
        .map(|(kind, usage)| Ok((kind, usage?.resident)))
        .collect()
}
