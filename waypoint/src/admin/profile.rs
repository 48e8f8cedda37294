//! A CPU profile of the process in pprof's format: `go tool pprof
//! http://localhost:15000/debug/pprof/profile?seconds=10`.

use std::time::Duration;

use http::StatusCode;
use mesh::pages::{Response, text};
use pprof::ProfilerGuardBuilder;
use pprof::protos::Message;
use tokio::sync::Mutex;

use super::PLAIN;

/// Samples a second and thread; not a divisor of what else happens regularly.
const FREQUENCY: i32 = 199;
/// How long a profile takes by default, and at most, in seconds.
const USUAL: u64 = 10;
const LONGEST: u64 = 120;

/// The profiler is a signal handler of the process: there is one.
static BUSY: Mutex<()> = Mutex::const_new(());

/// Takes a profile.
pub(super) async fn answer(query: &str) -> Response {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let seconds = match pairs.find(|(key, _)| *key == "seconds") {
        None => USUAL,
        Some((_, value)) => match value.parse() {
            Ok(seconds) if (1..=LONGEST).contains(&seconds) => seconds,
            _ => {
                let problem = format!("seconds={value:?}: expected 1 to {LONGEST}\n");
                return text(StatusCode::BAD_REQUEST, PLAIN, problem);
            }
        },
    };
    let Ok(_alone) = BUSY.try_lock() else {
        let problem = "another profile is being taken\n";
        return text(StatusCode::CONFLICT, PLAIN, problem);
    };
    match take(Duration::from_secs(seconds)).await {
        Ok(profile) => text(StatusCode::OK, "application/octet-stream", profile),
        Err(problem) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, problem),
    }
}

async fn take(time: Duration) -> Result<Vec<u8>, String> {
    let failed = |error: pprof::Error| format!("no profile could be taken: {error}\n");
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .build()
        .map_err(failed)?;
    tokio::time::sleep(time).await;
    let report = guard.report().build().map_err(failed)?;
    let profile = report.pprof().map_err(failed)?;
    Ok(profile.encode_to_vec())
}
