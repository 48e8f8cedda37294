//! How connections end when this process is asked to stop, and what of Istio's `ProxyConfig` a
//! waypoint heeds.

use std::time::Duration;

use clap::{ArgAction, Args};
use serde::Deserialize;

use mesh::duration;

/// How long the drain takes where nobody says (Istio's default).
const DEFAULT: Duration = Duration::from_secs(5);
/// No connection is looked for sooner than this where the end waits for the last one (Istio's
/// default).
const MINIMUM: Duration = Duration::from_secs(5);

/// How connections end when this process is asked to stop.
#[derive(Debug, Clone, Args, PartialEq, Eq)]
pub struct Drain {
    /// How long requests may take to end after SIGTERM, such as `5s`.
    #[arg(id = "drain", long = "drain", env = "TERMINATION_DRAIN_DURATION", value_parser = duration::parse, global = true)]
    pub duration: Option<Duration>,
    /// End when the last connection has, however long that takes.
    #[arg(long, env = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS", action = ArgAction::Set, default_value = "false", global = true)]
    pub exit_on_zero_active_connections: bool,
    /// The shortest drain where the end waits for the last connection.
    #[arg(long, env = "MINIMUM_DRAIN_DURATION", value_parser = duration::parse, global = true)]
    pub minimum_drain: Option<Duration>,
}

/// Istio's `ProxyConfig` as istiod writes it into a waypoint's environment, as far as a waypoint
/// heeds it.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// The control plane, `host:port`.
    pub discovery_address: Option<String>,
    /// Threads; 0: as many as there are CPUs.
    pub concurrency: usize,
    /// How long requests may take to end.
    pub termination_drain_duration: Option<String>,
    /// Further variables of the environment.
    pub proxy_metadata: std::collections::BTreeMap<String, String>,
    /// All of it, as it came: the control plane wants it back.
    #[serde(skip)]
    pub text: String,
}

impl Drain {
    /// Without a word from the environment, as the mesh's settings say.
    pub(super) fn or_as(&self, config: &ProxyConfig) -> Self {
        let told = config.termination_drain_duration.as_deref();
        let mut drain = self.clone();
        if drain.duration.is_none() {
            drain.duration = told.and_then(|text| duration::parse(text).ok());
        }
        let metadata = config.proxy_metadata.get("EXIT_ON_ZERO_ACTIVE_CONNECTIONS");
        drain.exit_on_zero_active_connections |= metadata.is_some_and(|value| value == "true");
        drain
    }

    /// How long requests may take; none where the end waits for the last connection.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        (!self.exit_on_zero_active_connections).then(|| self.duration.unwrap_or(DEFAULT))
    }

    /// No sooner than this does the process end: peers need to hear of it first.
    #[must_use]
    pub fn at_least(&self) -> Duration {
        match self.exit_on_zero_active_connections {
            true => self.minimum_drain.unwrap_or(MINIMUM),
            false => Duration::ZERO,
        }
    }
}

impl ProxyConfig {
    /// Parses the JSON; fields of Istio's that mean nothing to a waypoint are skipped.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = serde_json::from_str(if text.is_empty() { "{}" } else { text })
            .map_err(|error| format!("no ProxyConfig in JSON: {error}"))?;
        text.clone_into(&mut config.text);
        match config.termination_drain_duration.as_deref() {
            Some(text) => duration::parse(text).map(|_| config.clone()),
            None => Ok(config),
        }
    }
}
