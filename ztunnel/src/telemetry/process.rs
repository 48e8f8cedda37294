//! What the kernel says about this process, under the names that Prometheus' own clients use.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self` when somebody asks.
#[derive(Debug)]
pub struct Process;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    threads: i64,
    open_files: i64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let open_files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Some(Self {
            open_files: i64::try_from(open_files).unwrap_or(i64::MAX),
            ..Self::parse(&stat, ticks(), page())?
        })
    }

    /// Reads a line of `/proc/PID/stat` (proc(5)); the name in parentheses may contain anything.
    fn parse(stat: &str, ticks_a_second: f64, page_bytes: i64) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and two fields stand before the parenthesis' end.
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        #[allow(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
        let cpu_seconds = (field(14)? + field(15)?) as f64 / ticks_a_second;
        Some(Self {
            cpu_seconds,
            resident_bytes: field(24)? * page_bytes,
            virtual_bytes: field(23)?,
            threads: field(20)?,
            open_files: 0,
        })
    }
}

fn ticks() -> f64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten();
    #[allow(clippy::cast_precision_loss, reason = "it is 100, or a little more")]
    ticks.map_or(100.0, |ticks| ticks as f64)
}

fn page() -> i64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(usage) = Usage::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time used",
            None,
            MetricType::Counter,
        )?)?;
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                usage.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                usage.virtual_bytes,
            ),
            ("process_threads", "Threads", usage.threads),
            (
                "process_open_fds",
                "Open file descriptors",
                usage.open_files,
            ),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_by_its_field_numbers() {
        let line = "17 (a ) b) S 1 17 17 0 -1 4194560 3103 0 0 0 250 150 0 0 20 0 5 0 888 9437184 512 18446744073709551615";
        let expected = Usage {
            cpu_seconds: 4.0,
            resident_bytes: 512 * 4096,
            virtual_bytes: 9_437_184,
            threads: 5,
            open_files: 0,
        };
        assert_eq!(Usage::parse(line, 100.0, 4096), Some(expected));
        assert_eq!(Usage::parse("17 (x", 100.0, 4096), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 0 && usage.threads > 0 && usage.open_files > 0);
    }
}
