//! What an installation decides for all of its waypoints.

use serde_json::Value;

/// What an installation decides for all waypoints.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// Secrets to pull it with.
    pub pull_secrets: Vec<String>,
    /// `resources` of the container.
    pub resources: Value,
    /// Where control is, `host:port`.
    pub control: String,
    /// The DNS suffix of services.
    pub domain: String,
    /// The trust domain.
    pub trust_domain: String,
    /// The cluster's name.
    pub cluster: String,
    /// The network; empty for the default.
    pub network: String,
    /// How much waypoints log.
    pub log_level: String,
    /// Whether they log as JSON.
    pub log_json: bool,
}
