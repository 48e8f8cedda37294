//! What a policy's status says, and the writing of it.
//!
//! The condition is istiod's own (`ZtunnelAccepted`), so that people and tools find it where they
//! look. Writing is idempotent: a condition that says the same already is left alone, so that
//! several replicas do not fight.

pub mod route;
pub mod writer;

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The type of our condition.
pub const CONDITION: &str = "ZtunnelAccepted";
/// The same for what waypoints enforce.
pub const WAYPOINT_CONDITION: &str = "WaypointAccepted";

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the policy, as it is now, is in force.
    pub accepted: bool,
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// What in it is wrong or not supported, alone: `message` says beside it what is in force.
    pub problem: Option<String>,
    /// The type of the condition: who takes it in.
    pub condition: &'static str,
}

impl Verdict {
    /// All of it is in force.
    #[must_use]
    pub fn accepted() -> Self {
        Self {
            accepted: true,
            reason: "Accepted",
            message: "attached to ztunnel".to_owned(),
            problem: None,
            condition: CONDITION,
        }
    }

    /// Something in it is nothing for a node proxy.
    #[must_use]
    pub fn unsupported(accepted: bool, message: String) -> Self {
        Self {
            accepted,
            reason: "UnsupportedValue",
            problem: Some(message.clone()),
            message,
            condition: CONDITION,
        }
    }

    /// Something in it is wrong.
    #[must_use]
    pub fn invalid(problems: &BTreeSet<String>) -> Self {
        let all = problems
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            accepted: false,
            reason: "Invalid",
            problem: Some(all.clone()),
            message: all,
            condition: CONDITION,
        }
    }

    /// The same, said of waypoints.
    #[must_use]
    pub fn for_waypoints(mut self) -> Self {
        self.condition = WAYPOINT_CONDITION;
        if self.accepted {
            self.message = "in force at waypoints".to_owned();
        }
        self
    }

    /// The same, with the fields that nobody reads.
    #[must_use]
    pub fn without(mut self, passed_over: &[String]) -> Self {
        if !passed_over.is_empty() {
            let fields = passed_over.join(", ");
            self.message = format!(
                "{}; passed over, because it is not known here: {fields}",
                self.message
            );
        }
        self
    }

    /// The same, with what is in force in its place.
    #[must_use]
    pub fn instead(mut self, in_force: &str) -> Self {
        self.message = format!("{}. {in_force}", self.message);
        self
    }
}

/// The conditions with ours among them; `None` when nothing would change.
#[must_use]
pub fn conditions(
    current: &[Value],
    verdict: &Verdict,
    generation: i64,
    now: &str,
) -> Option<Vec<Value>> {
    let status = if verdict.accepted { "True" } else { "False" };
    let field = |condition: &Value, name: &str| {
        condition
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let ours = current
        .iter()
        .find(|condition| field(condition, "type").as_deref() == Some(verdict.condition));
    // Istio's schema allows the generation as text too.
    let observed = |condition: &Value| match condition.get("observedGeneration") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_i64(),
        None => None,
    };
    let same = |condition: &Value| {
        field(condition, "status").as_deref() == Some(status)
            && field(condition, "reason").as_deref() == Some(verdict.reason)
            && field(condition, "message").as_deref() == Some(verdict.message.as_str())
            && observed(condition) == Some(generation)
    };
    if ours.is_some_and(same) {
        return None;
    }
    let since = ours
        .filter(|condition| field(condition, "status").as_deref() == Some(status))
        .and_then(|condition| field(condition, "lastTransitionTime"))
        .unwrap_or_else(|| now.to_owned());
    let others = current
        .iter()
        .filter(|condition| field(condition, "type").as_deref() != Some(verdict.condition));
    let mut all: Vec<Value> = others.cloned().collect();
    all.push(json!({
        "type": verdict.condition,
        "status": status,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }));
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_writers_conditions_stay_and_the_same_verdict_is_not_written_twice() {
        let other = json!({"type": "WaypointAccepted", "status": "True"});
        let first = conditions(
            std::slice::from_ref(&other),
            &Verdict::accepted(),
            3,
            "2026-01-01T00:00:00Z",
        )
        .unwrap();
        assert_eq!(first[0], other);
        assert_eq!(first[1]["type"], "ZtunnelAccepted");
        assert_eq!(first[1]["status"], "True");
        assert_eq!(first[1]["reason"], "Accepted");
        assert_eq!(first[1]["message"], "attached to ztunnel");
        assert_eq!(
            conditions(&first, &Verdict::accepted(), 3, "2026-01-02T00:00:00Z"),
            None
        );
    }

    #[test]
    fn the_time_of_transition_changes_with_the_status_only() {
        let first = conditions(&[], &Verdict::accepted(), 1, "T1").unwrap();
        let second = conditions(&first, &Verdict::accepted(), 2, "T2").unwrap();
        assert_eq!(second[0]["lastTransitionTime"], "T1");
        let refused = Verdict::invalid(&BTreeSet::from(["no".to_owned()]));
        let third = conditions(&second, &refused, 3, "T3").unwrap();
        assert_eq!(third[0]["lastTransitionTime"], "T3");
        assert_eq!(third[0]["status"], "False");
        assert_eq!(third.len(), 1);
    }

    #[test]
    fn a_generation_written_as_text_is_understood() {
        let mut first = conditions(&[], &Verdict::accepted(), 7, "T1").unwrap();
        first[0]["observedGeneration"] = json!("7");
        assert_eq!(conditions(&first, &Verdict::accepted(), 7, "T2"), None);
    }
}
