//! What a waypoint makes of a resource: whether it takes it, and what it comes to in its engine.

use serde_json::Value;
use waypoint::intake::chain::ChainCache;
use waypoint::intake::served::Notes;
use waypoint::intake::{cluster, endpoint, listener};
use waypoint::source::json::Descriptors;

/// The compiled resource as lines, sorted because its tables are in no order; why it is refused, where
/// it is.
pub(crate) fn compiled(resource: &Value) -> Result<String, String> {
    let held = Descriptors::get();
    let any = held.any(resource.clone()).map_err(|why| why.to_string())?;
    let name = resource.get("name").or(resource.get("cluster_name"));
    let name = name.and_then(Value::as_str).unwrap_or_default();
    let kind = any.type_url.rsplit('.').next().unwrap_or_default();
    let mut notes = Notes::default();
    match kind {
        "Cluster" => {
            let made = cluster::cluster(name, &any.value, &mut notes);
            made.map(|made| lines(&made)).map_err(|why| why.to_string())
        }
        "ClusterLoadAssignment" => {
            let made = endpoint::endpoints(name, &any.value, &mut notes);
            made.map(|made| lines(&made)).map_err(|why| why.to_string())
        }
        "Listener" => {
            let message = held.message(resource.clone());
            let message = message.map_err(|why| why.to_string())?;
            let made = listener::resource(message, &mut notes, &mut ChainCache::default());
            let made = made.map_err(|why| why.to_string())?;
            match made {
                Some(made) if !made.refused.is_empty() => Err(made.refused.join("; ")),
                made => Ok(lines(&made)),
            }
        }
        other => Err(format!("a waypoint is not told of {other}")),
    }
}

fn lines(made: &impl std::fmt::Debug) -> String {
    let text = format!("{made:#?}");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}
