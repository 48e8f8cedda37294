//! The table: both planes beside each other, and the goal of each line.

use std::fmt::Write;
use std::time::Duration;

use super::Plan;

/// What was measured of one plane.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Resident, with no objects, in bytes.
    pub idle: u64,
    /// Resident, with all objects.
    pub loaded: u64,
    /// Resident, with all objects and proxies.
    pub connected: u64,
    /// CPU-seconds a second while pods change.
    pub cpu: f64,
    /// From the API server's answer to the proxy's socket, sorted.
    pub delays: Vec<Duration>,
    /// From the start of the process to its readiness, with all objects.
    pub start: Duration,
}

impl Measured {
    fn delay(&self, part: f64) -> f64 {
        let last = self.delays.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        self.delays
            .get(at)
            .map_or(f64::NAN, |delay| delay.as_secs_f64() * 1000.0)
    }
}

/// The table of control and istiod, in Markdown.
#[must_use]
pub fn table([control, istiod]: &[Measured; 2], plan: Plan) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let size = plan.size;
    let rows = [
        (
            "resident, idle, MiB",
            mib(control.idle),
            mib(istiod.idle),
            0.2,
        ),
        (
            &format!(
                "resident, {} services and {} pods, MiB",
                size.services, size.pods
            ),
            mib(control.loaded),
            mib(istiod.loaded),
            0.2,
        ),
        (
            &format!("resident, {} proxies beside them, MiB", plan.proxies),
            mib(control.connected),
            mib(istiod.connected),
            0.2,
        ),
        (
            &format!(
                "CPU at {} pod changes a second, {} proxies, %",
                plan.rate, plan.proxies
            ),
            control.cpu * 100.0,
            istiod.cpu * 100.0,
            1.0 / 3.0,
        ),
        (
            "object changed to proxy, p50, ms",
            control.delay(0.5),
            istiod.delay(0.5),
            0.5,
        ),
        (
            "object changed to proxy, p99, ms",
            control.delay(0.99),
            istiod.delay(0.99),
            0.5,
        ),
        (
            "start to ready with these objects, ms",
            control.start.as_secs_f64() * 1000.0,
            istiod.start.as_secs_f64() * 1000.0,
            0.5,
        ),
    ];
    let mut text = String::from("| | control | istiod | part | goal |\n|---|---|---|---|---|\n");
    for (what, ours, theirs, goal) in rows {
        let part = ours / theirs;
        let mark = if part <= goal { "" } else { " (missed)" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {ours:.1} | {theirs:.1} | {part:.2}{mark} | ≤ {goal:.2} |"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::objects::Size;
    use super::*;

    #[test]
    fn a_missed_goal_is_marked() {
        let one = |scale: u64| Measured {
            idle: scale << 20,
            loaded: scale << 20,
            connected: scale << 20,
            cpu: scale as f64,
            delays: (0..=100)
                .map(|number| Duration::from_millis(number * scale))
                .collect(),
            start: Duration::from_secs(scale),
        };
        let size = Size {
            services: 1,
            pods: 1,
        };
        let plan = Plan {
            size,
            proxies: 1,
            rate: 1,
            seconds: 1,
        };
        let text = table(&[one(1), one(4)], plan);
        assert!(text.contains("p50, ms | 50.0 | 200.0 | 0.25 |"), "{text}");
        assert!(text.contains("p99, ms | 99.0 | 396.0 | 0.25 |"), "{text}");
        assert!(
            text.contains("idle, MiB | 1.0 | 4.0 | 0.25 (missed) |"),
            "{text}"
        );
    }
}
