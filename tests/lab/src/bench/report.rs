//! Rounds turned into medians, ratios of pairs and goals, and JSON for machines.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::Settings;
use super::rig::Subject;
use super::rounds::Measured;

/// What this release must reach, as a part of no mesh in the same run.
const STREAM: f64 = 0.18;
const LOADED: f64 = 0.55;
/// The application with which [`LOADED`] was measured of Istio's ztunnel managed this many requests
/// a second without a mesh, on two processors. Ours costs a third of that, which makes the same
/// mesh look worse; so the time that the mesh adds to a request is also put beside that
/// application's. The plain ratio stays a goal of its own.
const REFERENCE: f64 = 24_500.0;
const FRESH: f64 = 0.35;
/// And in MB.
const RESIDENT: f64 = 20.0;

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// How many rounds.
    pub rounds: usize,
    /// How long one measurement took, in seconds.
    pub seconds: f64,
    /// The subjects, no mesh first.
    pub subjects: Vec<Summary>,
    /// What had to be reached.
    pub goals: Vec<Goal>,
}

/// Where it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// How many processors.
    pub processors: usize,
}

/// One subject.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Medians over the rounds.
    pub median: Measured,
    /// Medians of each round's ratio to no mesh.
    pub ratio: Measured,
    /// What the mesh adds to each request at sixteen connections: median of the rounds, in µs of
    /// the machine's time.
    pub added_16: f64,
    /// Every round.
    pub rounds: Vec<Measured>,
}

/// A goal and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// In words.
    pub what: String,
    /// What was measured.
    pub measured: f64,
    /// The least, or the most for memory.
    pub goal: f64,
    /// Whether it was reached.
    pub reached: bool,
}

impl Report {
    /// Sums up. `rounds[r][s]` is round r of subject s; the first subject is no mesh.
    ///
    /// # Errors
    /// Without a round.
    pub fn new(
        settings: &Settings,
        subjects: &[Subject],
        rounds: &[Vec<Measured>],
    ) -> Result<Self> {
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name).collect();
        let subjects = summaries(&names, rounds).ok_or_else(|| anyhow!("nothing was measured"))?;
        let goals = subjects
            .iter()
            .find(|subject| subject.name == "culvert")
            .map(goals)
            .unwrap_or_default();
        Ok(Self {
            machine: Machine::here()?,
            rounds: settings.rounds,
            seconds: settings.time.as_secs_f64(),
            subjects,
            goals,
        })
    }

    /// Writes the JSON file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// Whether every goal was reached.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.goals.iter().all(|goal| goal.reached)
    }
}

fn summaries(names: &[&str], rounds: &[Vec<Measured>]) -> Option<Vec<Summary>> {
    let base: Vec<Measured> = column(rounds, 0)?;
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let own = column(rounds, index)?;
            let ratios: Vec<Measured> = own
                .iter()
                .zip(&base)
                .map(|(own, base)| both(own, base, |own, base| own / base))
                .collect();
            let added = own
                .iter()
                .zip(&base)
                .map(|(own, base)| 1e6 / own.requests_16 - 1e6 / base.requests_16);
            Some(Summary {
                added_16: median(added.collect()),
                name: (*name).to_owned(),
                median: medians(&own),
                ratio: medians(&ratios),
                rounds: own,
            })
        })
        .collect()
}

fn column(rounds: &[Vec<Measured>], index: usize) -> Option<Vec<Measured>> {
    let column: Option<Vec<Measured>> = rounds
        .iter()
        .map(|round| round.get(index).copied())
        .collect();
    column.filter(|column| !column.is_empty())
}

fn goals(ours: &Summary) -> Vec<Goal> {
    let least = |what: &str, measured: f64, goal: f64| Goal {
        what: what.to_owned(),
        measured,
        goal,
        reached: measured >= goal,
    };
    let resident = ours.median.resident;
    let request = 1e6 / REFERENCE;
    vec![
        least("one stream, of no mesh", ours.ratio.stream_1, STREAM),
        least("16 connections, of no mesh", ours.ratio.requests_16, LOADED),
        least(
            "the same, of an application with 24,500 requests/s",
            request / (request + ours.added_16),
            LOADED,
        ),
        least("new connections, of no mesh", ours.ratio.connections, FRESH),
        Goal {
            what: "resident, MB".to_owned(),
            measured: resident,
            goal: RESIDENT,
            reached: resident <= RESIDENT,
        },
    ]
}

/// Applies `f` to every number of two measurements.
fn both(left: &Measured, right: &Measured, f: impl Fn(f64, f64) -> f64) -> Measured {
    Measured {
        stream_1: f(left.stream_1, right.stream_1),
        stream_4: f(left.stream_4, right.stream_4),
        cpu_per_gb: f(left.cpu_per_gb, right.cpu_per_gb),
        latency_1_p50: f(left.latency_1_p50, right.latency_1_p50),
        latency_1_p99: f(left.latency_1_p99, right.latency_1_p99),
        latency_16_p50: f(left.latency_16_p50, right.latency_16_p50),
        latency_16_p99: f(left.latency_16_p99, right.latency_16_p99),
        requests_16: f(left.requests_16, right.requests_16),
        connections: f(left.connections, right.connections),
        failures: f(left.failures, right.failures),
        resident: f(left.resident, right.resident),
        resident_peak: f(left.resident_peak, right.resident_peak),
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.retain(|number| number.is_finite());
    of.sort_by(f64::total_cmp);
    let middle = of.len() / 2;
    match of.len() {
        0 => 0.0,
        length if length % 2 == 1 => of[middle],
        _ => f64::midpoint(of[middle - 1], of[middle]),
    }
}

fn medians(of: &[Measured]) -> Measured {
    let median = |number: fn(&Measured) -> f64| median(of.iter().map(number).collect());
    Measured {
        stream_1: median(|m| m.stream_1),
        stream_4: median(|m| m.stream_4),
        cpu_per_gb: median(|m| m.cpu_per_gb),
        latency_1_p50: median(|m| m.latency_1_p50),
        latency_1_p99: median(|m| m.latency_1_p99),
        latency_16_p50: median(|m| m.latency_16_p50),
        latency_16_p99: median(|m| m.latency_16_p99),
        requests_16: median(|m| m.requests_16),
        connections: median(|m| m.connections),
        failures: median(|m| m.failures),
        resident: median(|m| m.resident),
        resident_peak: median(|m| m.resident_peak),
    }
}

impl Machine {
    fn here() -> Result<Self> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned();
        let info = std::fs::read_to_string("/proc/cpuinfo")?;
        let processor = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim())
            .to_owned();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            kernel,
            processor,
            processors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(stream_1: f64) -> Measured {
        Measured {
            stream_1,
            requests_16: 100.0,
            connections: 100.0,
            ..Measured::default()
        }
    }

    #[test]
    fn ratios_are_of_pairs_within_a_round() {
        // The machine is twice as fast in the second round; each pair still says one half.
        let rounds = vec![
            vec![measured(10.0), measured(5.0)],
            vec![measured(20.0), measured(10.0)],
        ];
        let summed = summaries(&["no mesh", "culvert"], &rounds).unwrap();
        assert!((summed[1].ratio.stream_1 - 0.5).abs() < 1e-9);
        assert!((summed[1].median.stream_1 - 7.5).abs() < 1e-9);
        let goals = goals(&summed[1]);
        assert!(goals.iter().all(|goal| goal.reached), "{goals:?}");
    }

    #[test]
    fn what_the_mesh_adds_is_told_apart_from_what_the_application_costs() {
        let at = |requests_16| Measured {
            requests_16,
            ..measured(1.0)
        };
        // 10 µs a request without the mesh, 43 with it: it adds 33, as to an application that
        // takes 41 by itself and comes to 0.55 with it.
        let rounds = vec![vec![at(100_000.0), at(1e6 / 43.0)]];
        let summed = summaries(&["no mesh", "culvert"], &rounds).unwrap();
        assert!((summed[1].added_16 - 33.0).abs() < 1e-6);
        assert!(summed[1].ratio.requests_16 < 0.25);
        let goals = goals(&summed[1]);
        let (plain, beside) = (&goals[1], &goals[2]);
        assert!(!plain.reached && plain.measured < 0.25, "{plain:?}");
        assert!(beside.reached && beside.measured < 0.56, "{beside:?}");
    }

    #[test]
    fn a_missed_goal_is_told() {
        let rounds = vec![vec![measured(100.0), measured(1.0)]];
        let summed = summaries(&["no mesh", "culvert"], &rounds).unwrap();
        assert!(!goals(&summed[1])[0].reached);
        assert!(summaries(&["no mesh"], &[]).is_none());
    }
}
