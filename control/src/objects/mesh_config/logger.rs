//! Access logs in a form of one's own: `envoyFileAccessLog` among the mesh configuration's providers.

use serde::Deserialize;
use serde_json::{Map, Value};

/// `envoyFileAccessLog`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FileLog {
    /// Where to; none: standard output.
    pub path: String,
    /// How; none: Istio's own line.
    pub log_format: Option<LogFormat>,
    /// What there is nothing of is left out, rather than written as `-`.
    pub omit_empty_values: bool,
}

/// `envoyFileAccessLog.logFormat`: one of both.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFormat {
    /// A line, with Envoy's operators.
    pub text: String,
    /// An object for each line; values have Envoy's operators.
    pub labels: Option<Map<String, Value>>,
}

impl FileLog {
    /// Says what is wrong, by its field.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.path.is_empty() && !self.path.starts_with('/') {
            return Err(format!("path: {:?} does not begin with a slash", self.path));
        }
        match &self.log_format {
            Some(format) if format.labels.is_some() && !format.text.is_empty() => {
                Err("logFormat: text and labels exclude each other".to_owned())
            }
            _ => Ok(()),
        }
    }
}
