//! Telemetry, telemetry.istio.io: as far as waypoints are told, whether requests are logged.

use serde::Deserialize;

use super::authorization_policy::Selector;
use super::request_authentication::TargetRef;

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Which workloads: then it is not for waypoints.
    pub selector: Option<Selector>,
    /// Which waypoints or services.
    pub target_refs: Vec<TargetRef>,
    /// Whether and where requests are logged.
    pub access_logging: Vec<AccessLogging>,
}

/// `spec.accessLogging[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccessLogging {
    /// Not.
    pub disabled: Option<bool>,
}

impl Telemetry {
    /// What it says of logging requests; `None` when nothing.
    #[must_use]
    pub fn logs(&self) -> Option<bool> {
        let last = self.access_logging.last()?;
        Some(!last.disabled.unwrap_or_default())
    }
}
