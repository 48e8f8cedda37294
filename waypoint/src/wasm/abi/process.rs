//! What a plugin is told of its process and has told by it: log lines, the time, numbers for
//! Prometheus, when to be woken.

use std::time::{Duration, SystemTime};

use super::{Functions, Guest, LONGEST_LINE, Status, look, text, told, write, write_number};
use crate::wasm::metrics::Kind;

/// The shortest pause between two ticks.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

pub(super) fn put(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_log",
        |guest: Guest<'_>, level: u32, at: u32, length: u32| {
            let line = look(&guest, at, length).map(|line| {
                let line = &line[..line.len().min(LONGEST_LINE)];
                log(&guest.data().settings.name, level, line);
            });
            told(line)
        },
    )?;
    functions.env("proxy_get_log_level", |mut guest: Guest<'_>, at: u32| {
        let level = match tracing::level_filters::LevelFilter::current().into_level() {
            Some(tracing::Level::TRACE) => 0,
            Some(tracing::Level::DEBUG) => 1,
            Some(tracing::Level::INFO) => 2,
            Some(tracing::Level::WARN) => 3,
            _ => 4,
        };
        told(write_number(&mut guest, at, level))
    })?;
    functions.env(
        "proxy_get_current_time_nanoseconds",
        |mut guest: Guest<'_>, at: u32| told(write(&mut guest, at, &now().to_le_bytes())),
    )?;
    functions.env(
        "proxy_set_tick_period_milliseconds",
        |mut guest: Guest<'_>, millis: u32| {
            let period = Duration::from_millis(millis.into());
            guest.data_mut().tick = Some(match period.is_zero() {
                true => period,
                false => period.max(SHORTEST_TICK),
            });
            told(Ok(()))
        },
    )?;
    // Functions of one host's own: we have none.
    functions.env(
        "proxy_call_foreign_function",
        |_: Guest<'_>, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| told(Err(Status::NotFound)),
    )?;
    metrics(functions)
}

fn metrics(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_define_metric",
        |mut guest: Guest<'_>, kind: u32, name: u32, length: u32, at: u32| {
            let kind = match kind {
                0 => Ok(Kind::Counter),
                1 => Ok(Kind::Gauge),
                2 => Ok(Kind::Histogram),
                _ => Err(Status::BadArgument),
            };
            let id = kind.and_then(|kind| {
                let name = text(&guest, name, length)?;
                let metrics = &guest.data().shared.metrics;
                metrics.define(kind, &name).ok_or(Status::InternalFailure)
            });
            told(id.and_then(|id| write_number(&mut guest, at, id)))
        },
    )?;
    functions.env(
        "proxy_increment_metric",
        |guest: Guest<'_>, id: u32, by: i64| {
            told(match guest.data().shared.metrics.increment(id, by) {
                Some(true) => Ok(()),
                Some(false) => Err(Status::BadArgument),
                None => Err(Status::NotFound),
            })
        },
    )?;
    functions.env(
        "proxy_record_metric",
        |guest: Guest<'_>, id: u32, value: u64| {
            let recorded = guest.data().shared.metrics.record(id, value);
            told(recorded.ok_or(Status::NotFound))
        },
    )?;
    functions.env(
        "proxy_get_metric",
        |mut guest: Guest<'_>, id: u32, at: u32| {
            let value = guest.data().shared.metrics.get(id);
            told(match value {
                Some(value) => write(&mut guest, at, &value.to_le_bytes()),
                None => Err(Status::NotFound),
            })
        },
    )
}

/// Writes a plugin's line to the log.
pub(super) fn log(plugin: &str, level: u32, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    match level {
        0 => tracing::trace!(plugin, "{line}"),
        1 => tracing::debug!(plugin, "{line}"),
        2 => tracing::info!(plugin, "{line}"),
        3 => tracing::warn!(plugin, "{line}"),
        _ => tracing::error!(plugin, "{line}"),
    }
}

/// The time since 1970, in nanoseconds.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
