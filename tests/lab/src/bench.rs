//! What the mesh costs, measured against no mesh at all in the same run: the subjects take turns
//! within each round, so that a noisy machine is noisy for all of them, and ratios are of pairs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

pub mod istio;
pub mod report;
pub mod rig;
pub mod rounds;
mod table;

use report::Report;
use rig::Rig;
use rounds::Measured;

use crate::workload::Program;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many rounds.
    pub rounds: usize,
    /// How long one measurement takes.
    pub time: Duration,
    /// Another ztunnel to run in the same rounds.
    pub peer: Option<Peer>,
    /// What runs as the pods' workload.
    pub program: Program,
}

/// Another ztunnel.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The program.
    pub path: PathBuf,
    /// Whose it is, which decides how it is told what to do.
    pub kind: Kind,
}

/// Whose ztunnel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Another build of Culvert's.
    Culvert,
    /// Istio's.
    Istio,
}

/// Runs the rounds; `progress` is told what happens.
///
/// # Errors
/// When the lab can't be built or a measurement breaks.
pub async fn run(settings: &Settings, mut progress: impl FnMut(&str)) -> Result<Report> {
    progress("building the lab");
    let rig = Rig::build(settings).await?;
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    // The first time through everything is cold: certificates, pools, page cache, CPU clock.
    progress("warming up");
    for subject in rig.subjects() {
        rounds::measure(subject, settings.time / 4).await?;
    }
    for round in 1..=settings.rounds {
        progress(&format!("round {round} of {}", settings.rounds));
        let mut measured = Vec::new();
        for subject in rig.subjects() {
            measured.push(rounds::measure(subject, settings.time).await?);
        }
        rounds.push(measured);
    }
    Report::new(settings, rig.subjects(), &rounds)
}
