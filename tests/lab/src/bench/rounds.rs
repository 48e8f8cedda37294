//! One round of one subject: every measurement once, with the processor time of its ztunnels.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use super::rig::Subject;
use crate::agent::orders::Plan;

/// Bytes of an answer in the request measurements.
const ANSWER: usize = 1024;
/// Connections of the loaded request measurement, and workers of the one with new connections.
const MANY: usize = 16;

/// What a round measured of a subject.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Measured {
    /// One bulk stream, Gbit/s.
    pub stream_1: f64,
    /// Four bulk streams together, Gbit/s.
    pub stream_4: f64,
    /// Processor seconds of both ztunnels for a gigabyte (10^9 bytes) of the one stream.
    pub cpu_per_gb: f64,
    /// Keep-alive, one connection: median in µs.
    pub latency_1_p50: f64,
    /// Keep-alive, one connection: 99th percentile in µs.
    pub latency_1_p99: f64,
    /// Keep-alive, sixteen connections: median in µs.
    pub latency_16_p50: f64,
    /// Keep-alive, sixteen connections: 99th percentile in µs.
    pub latency_16_p99: f64,
    /// Keep-alive, sixteen connections: requests a second.
    pub requests_16: f64,
    /// A new connection for each request: requests a second.
    pub connections: f64,
    /// Requests of the round that failed.
    pub failures: f64,
    /// The larger ztunnel's resident memory after the round, MB (10^6 bytes).
    pub resident: f64,
    /// The larger ztunnel's largest resident memory so far, MB.
    pub resident_peak: f64,
}

/// Measures everything once.
///
/// # Errors
/// When a measurement breaks.
pub async fn measure(subject: &Subject, time: Duration) -> Result<Measured> {
    let plan = |connections| Plan {
        to: subject.target(),
        connections,
        millis: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        answer: ANSWER,
    };
    let client = subject.client();
    let name = subject.name;
    let before = cpu(subject)?;
    let one = client
        .measure_stream(plan(1))
        .await
        .with_context(|| format!("{name}: one stream"))?;
    let spent = cpu(subject)? - before;
    let four = client
        .measure_stream(plan(4))
        .await
        .with_context(|| format!("{name}: four streams"))?;
    let alone = client
        .measure_latency(plan(1))
        .await
        .with_context(|| format!("{name}: one connection"))?;
    let loaded = client
        .measure_latency(plan(MANY))
        .await
        .with_context(|| format!("{name}: {MANY} connections"))?;
    let fresh = client
        .measure_rate(plan(MANY))
        .await
        .with_context(|| format!("{name}: new connections"))?;
    let gbit = |bytes: u64, seconds: f64| bytes as f64 * 8.0 / seconds / 1e9;
    let (resident, resident_peak) = memory(subject)?;
    Ok(Measured {
        stream_1: gbit(one.bytes, one.seconds),
        stream_4: gbit(four.bytes, four.seconds),
        cpu_per_gb: spent / (one.bytes as f64 / 1e9),
        latency_1_p50: alone.p50,
        latency_1_p99: alone.p99,
        latency_16_p50: loaded.p50,
        latency_16_p99: loaded.p99,
        requests_16: loaded.requests as f64 / loaded.seconds,
        connections: fresh.requests as f64 / fresh.seconds,
        failures: fresh.failures as f64,
        resident,
        resident_peak,
    })
}

/// Processor seconds of the subject's ztunnels since they started.
fn cpu(subject: &Subject) -> Result<f64> {
    let tick = sysconf(SysconfVar::CLK_TCK)?.ok_or_else(|| anyhow!("no clock tick"))? as f64;
    let mut ticks = 0.0;
    for node in subject.ztunnels() {
        let pid = node.ztunnel().pid()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name in parentheses: utime and stime are the 12th and 13th field.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        for field in fields.iter().skip(11).take(2) {
            ticks += field.parse::<f64>().context("/proc/PID/stat")?;
        }
    }
    Ok(ticks / tick)
}

/// The larger resident memory of the subject's ztunnels, now and at its peak, in MB.
fn memory(subject: &Subject) -> Result<(f64, f64)> {
    let mut largest = (0.0_f64, 0.0_f64);
    for node in subject.ztunnels() {
        let status = fs::read_to_string(format!("/proc/{}/status", node.ztunnel().pid()?))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let megabytes = |name: &str| {
            field(name)
                .map(|kib| kib * 1024.0 / 1e6)
                .unwrap_or_default()
        };
        largest = (
            largest.0.max(megabytes("VmRSS:")),
            largest.1.max(megabytes("VmHWM:")),
        );
    }
    Ok(largest)
}
