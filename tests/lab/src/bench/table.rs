//! The report as a table for people.

use std::fmt;

use super::report::{Machine, Report};
use super::rounds::Measured;

/// A line of the table: title, which number, decimals, whether a ratio makes sense.
struct Line {
    title: &'static str,
    of: fn(&Measured) -> f64,
    decimals: usize,
    ratio: bool,
}

const LINES: [Line; 12] = [
    Line {
        title: "one stream, Gbit/s",
        of: |m| m.stream_1,
        decimals: 2,
        ratio: true,
    },
    Line {
        title: "four streams, Gbit/s",
        of: |m| m.stream_4,
        decimals: 2,
        ratio: true,
    },
    Line {
        title: "CPU of both ztunnels, s/GB",
        of: |m| m.cpu_per_gb,
        decimals: 2,
        ratio: false,
    },
    Line {
        title: "keep-alive, 1 connection: p50, µs",
        of: |m| m.latency_1_p50,
        decimals: 0,
        ratio: true,
    },
    Line {
        title: "                          p99, µs",
        of: |m| m.latency_1_p99,
        decimals: 0,
        ratio: true,
    },
    Line {
        title: "keep-alive, 16 connections: p50, µs",
        of: |m| m.latency_16_p50,
        decimals: 0,
        ratio: true,
    },
    Line {
        title: "                            p99, µs",
        of: |m| m.latency_16_p99,
        decimals: 0,
        ratio: true,
    },
    Line {
        title: "                            requests/s",
        of: |m| m.requests_16,
        decimals: 0,
        ratio: true,
    },
    Line {
        title: "new connection each, requests/s",
        of: |m| m.connections,
        decimals: 0,
        ratio: true,
    },
    Line {
        title: "failed requests",
        of: |m| m.failures,
        decimals: 0,
        ratio: false,
    },
    Line {
        title: "resident after load, MB (the larger)",
        of: |m| m.resident,
        decimals: 1,
        ratio: false,
    },
    Line {
        title: "resident at its peak, MB",
        of: |m| m.resident_peak,
        decimals: 1,
        ratio: false,
    },
];

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            kernel,
            processor,
            processors,
        } = &self.machine;
        writeln!(out, "{processor}, {processors} processors, Linux {kernel}")?;
        writeln!(
            out,
            "client and server on different nodes, requests by hyper with answers of 1 KiB; medians of {} rounds of {} s each; in brackets: of no mesh\n",
            self.rounds, self.seconds
        )?;
        write!(out, "{:<38}", "")?;
        for subject in &self.subjects {
            write!(out, "{:>20}", subject.name)?;
        }
        writeln!(out)?;
        for Line {
            title,
            of,
            decimals,
            ratio,
        } in &LINES
        {
            write!(out, "{title:<38}")?;
            for (index, subject) in self.subjects.iter().enumerate() {
                let value = format!("{:.*}", *decimals, of(&subject.median));
                let cell = match (index, ratio) {
                    (0, false) if value.parse() == Ok(0.0) => "–".to_owned(),
                    (0, _) | (_, false) => value,
                    (_, true) => format!("{value} ({:.2})", of(&subject.ratio)),
                };
                write!(out, "{cell:>20}")?;
            }
            writeln!(out)?;
        }
        write!(out, "{:<38}", "added to a request of the 16, µs")?;
        for (index, subject) in self.subjects.iter().enumerate() {
            let cell = match index {
                0 => "–".to_owned(),
                _ => format!("{:.1}", subject.added_16),
            };
            write!(out, "{cell:>20}")?;
        }
        writeln!(out, "\n")?;
        for goal in &self.goals {
            let word = if goal.reached { "reached" } else { "MISSED" };
            writeln!(
                out,
                "{:<38} {:>8.2}   goal {:>6.2}   {word}",
                goal.what, goal.measured, goal.goal
            )?;
        }
        Ok(())
    }
}
