//! What the rounds amount to: a table of medians, and each goal of the issue beside what came of it.

use std::fmt;

use super::plan::Measure;
use super::process::Resident;
use super::scale::Scale;
use super::{Sample, Settings};
use crate::subject::Kind;

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    settings: Settings,
    samples: Vec<Sample>,
    idle: Vec<(Kind, Resident)>,
    after: Vec<(Kind, Resident)>,
    scale: Vec<Scale>,
}

/// A goal with what was measured.
#[derive(Clone, Debug)]
struct Goal {
    what: String,
    measured: f64,
    limit: f64,
    at_least: bool,
}

impl Goal {
    fn reached(&self) -> bool {
        if self.at_least {
            self.measured >= self.limit
        } else {
            self.measured <= self.limit
        }
    }
}

impl Report {
    pub(super) fn new(
        settings: Settings,
        samples: Vec<Sample>,
        idle: Vec<(Kind, Resident)>,
        after: Vec<(Kind, Resident)>,
        scale: Vec<Scale>,
    ) -> Self {
        Self {
            settings,
            samples,
            idle,
            after,
            scale,
        }
    }

    /// Whether every goal was reached.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.goals().iter().all(Goal::reached)
    }

    fn values(&self, measure: Measure, of: Option<Kind>, value: fn(&Sample) -> f64) -> Vec<f64> {
        let samples = self.samples.iter();
        let samples = samples.filter(|s| s.measure == measure && s.of == of);
        samples.map(value).collect()
    }

    fn median(&self, measure: Measure, of: Option<Kind>, value: fn(&Sample) -> f64) -> f64 {
        median(self.values(measure, of, value))
    }

    /// The median over rounds of ours divided by Envoy's in the same round; `base` is what is
    /// subtracted from both first: nothing, or what it takes without a proxy.
    fn ratio(&self, measure: Measure, value: fn(&Sample) -> f64, above_direct: bool) -> f64 {
        let of = |kind| self.values(measure, kind, value);
        let direct = of(None);
        let pairs = of(Some(Kind::Waypoint))
            .into_iter()
            .zip(of(Some(Kind::Envoy)));
        let ratios = pairs.zip(direct).map(|((ours, envoy), direct)| {
            let base = if above_direct { direct } else { 0.0 };
            (ours - base).max(0.0) / (envoy - base).max(f64::EPSILON)
        });
        median(ratios.collect())
    }

    fn of(&self, list: &[(Kind, Resident)], kind: Kind) -> Resident {
        let found = list.iter().find(|(k, _)| *k == kind);
        found.map(|(_, resident)| *resident).unwrap_or_default()
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let mut goal = |what: &str, measured, limit, at_least| {
            goals.push(Goal {
                what: what.to_owned(),
                measured,
                limit,
                at_least,
            });
        };
        let cpu = |measure| self.ratio(measure, |s| s.cpu, false);
        let rate = |measure| self.ratio(measure, throughput, false);
        goal(
            "CPU a request of Envoy's, 16 connections",
            cpu(Measure::Keep16),
            0.30,
            false,
        );
        goal(
            "CPU a request of Envoy's, 64 connections",
            cpu(Measure::Keep64),
            0.30,
            false,
        );
        goal(
            "requests/s of Envoy's, 16 connections",
            rate(Measure::Keep16),
            3.0,
            true,
        );
        goal(
            "requests/s of Envoy's, 64 connections",
            rate(Measure::Keep64),
            2.7,
            true,
        );
        let added = |value| self.ratio(Measure::Paced, value, true);
        goal(
            "added p50 of Envoy's at 1,000/s",
            added(|s| s.told.p50),
            0.5,
            false,
        );
        goal(
            "added p99 of Envoy's at 1,000/s",
            added(|s| s.told.p99),
            0.5,
            false,
        );
        goal(
            "CPU a call of Envoy's, gRPC unary",
            cpu(Measure::Unary),
            0.5,
            false,
        );
        goal(
            "CPU a message of Envoy's, gRPC streaming",
            cpu(Measure::Streaming),
            0.5,
            false,
        );
        goal(
            "CPU a request of Envoy's, bodies of 1 MiB",
            cpu(Measure::Bodies),
            0.5,
            false,
        );
        goal(
            "CPU a request of Envoy's, HBONE in and out",
            cpu(Measure::Tunnel16),
            0.5,
            false,
        );
        goal(
            "CPU a request of Envoy's, HBONE, 1 MiB",
            cpu(Measure::TunnelBodies),
            0.5,
            false,
        );
        let resident = self.of(&self.after, Kind::Waypoint).all;
        goal("resident after load, MB", resident, 10.0, false);
        let scale = |kind| self.scale.iter().find(|s| s.kind == kind);
        if let (Some(envoy), Some(ours)) = (scale(Kind::Envoy), scale(Kind::Waypoint)) {
            let resident = ours.resident.all / envoy.resident.all;
            goal(
                "resident of Envoy's, 20,000 endpoints",
                resident,
                0.1,
                false,
            );
            goal(
                "one route's push to its effect, ms",
                ours.route.effect,
                100.0,
                false,
            );
            goal(
                "a service's endpoints to their effect, ms",
                ours.endpoint.effect,
                100.0,
                false,
            );
        }
        // A row that was left out says nothing.
        goals.retain(|goal| !goal.measured.is_nan());
        goals
    }
}

fn throughput(sample: &Sample) -> f64 {
    sample.told.requests as f64 / sample.told.seconds
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

fn title(measure: Measure) -> &'static str {
    match measure {
        Measure::Keep16 => "HTTP/1.1, 16 connections",
        Measure::Keep64 => "HTTP/1.1, 64 connections",
        Measure::Paced => "HTTP/1.1, 1,000 requests/s",
        Measure::Bare16 => "router only, 16 connections",
        Measure::Bare64 => "router only, 64 connections",
        Measure::Logged16 => "with an access log, 16",
        Measure::Unary => "gRPC unary",
        Measure::Streaming => "gRPC streaming, a message",
        Measure::Bodies => "bodies of 1 MiB both ways",
        Measure::Tunnel16 => "HBONE in and out, 16",
        Measure::TunnelBodies => "HBONE, bodies of 1 MiB",
    }
}

const WAYS: [Option<Kind>; 3] = [None, Some(Kind::Envoy), Some(Kind::Waypoint)];

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            rows, rounds, time, ..
        } = &self.settings;
        writeln!(
            out,
            "one worker each, load and server on the same machine; medians of {rounds} rounds of {:.1} s; in brackets: of Envoy's in the same round\n",
            time.as_secs_f64()
        )?;
        writeln!(
            out,
            "{:<30}{:>12}{:>10}{:>18}{:>10}{:>12}{:>10}{:>10}",
            "", "", "no proxy", "", "envoy", "", "waypoint", ""
        )?;
        let measured = |measure: &Measure| self.samples.iter().any(|s| s.measure == *measure);
        for measure in rows.iter().copied().filter(measured) {
            type Row = (&'static str, fn(&Sample) -> f64, bool);
            let rows: [Row; 4] = [
                ("requests/s", throughput, false),
                ("CPU, µs", |s| s.cpu, false),
                ("p50, µs", |s| s.told.p50, false),
                ("p99, µs", |s| s.told.p99, false),
            ];
            for (number, (unit, value, above)) in rows.into_iter().enumerate() {
                let title = if number == 0 { title(measure) } else { "" };
                write!(out, "{title:<30}{unit:>12}")?;
                for way in WAYS {
                    write!(out, "{:>14.1}", self.median(measure, way, value))?;
                }
                writeln!(out, "   ({:.2})", self.ratio(measure, value, above))?;
            }
            let failures: f64 = WAYS
                .into_iter()
                .flat_map(|way| self.values(measure, way, |s| s.told.failures as f64))
                .sum();
            if failures > 0.0 {
                writeln!(out, "{:<30}{failures} requests failed", "")?;
            }
        }
        for (title, list) in [
            ("resident, idle", &self.idle),
            ("resident after load", &self.after),
        ] {
            let (envoy, ours) = (self.of(list, Kind::Envoy), self.of(list, Kind::Waypoint));
            let rows = [
                (title, "MB", envoy.all, ours.all),
                ("", "anonymous, MB", envoy.anonymous, ours.anonymous),
            ];
            for (title, unit, envoy, ours) in rows {
                writeln!(
                    out,
                    "{title:<29}{unit:>13}{:>14}{envoy:>14.1}{ours:>14.1}   ({:.2})",
                    "",
                    ours / envoy
                )?;
            }
        }
        for scale in &self.scale {
            let Scale {
                route, endpoint, ..
            } = scale;
            writeln!(
                out,
                "5,000 routes, 1,000 services, 20,000 endpoints: {:<9}{:>7.1} MB resident, {:.1} of it anonymous; a changed route in effect after {:.0} ms for {:.0} ms of CPU, changed endpoints after {:.0} ms for {:.0} ms",
                scale.kind.name(),
                scale.resident.all,
                scale.resident.anonymous,
                route.effect,
                route.cost,
                endpoint.effect,
                endpoint.cost
            )?;
        }
        writeln!(out)?;
        for goal in self.goals() {
            let sign = if goal.at_least { "≥" } else { "≤" };
            let word = if goal.reached() { "ok" } else { "MISSED" };
            writeln!(
                out,
                "{:<44}{:>9.2}   goal {sign} {:>6.2}   {word}",
                goal.what, goal.measured, goal.limit
            )?;
        }
        Ok(())
    }
}
