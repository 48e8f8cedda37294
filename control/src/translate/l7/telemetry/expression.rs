//! Expressions of Telemetries, tried here as a waypoint will read them, so that who wrote one is told in the
//! object's status what of it will not be.

use mesh::expression::{Problem, Terms};
use regex::Regex;

/// Says why a waypoint does not follow an expression; nothing, if it does.
pub(super) fn check(source: &str) -> Result<(), String> {
    match mesh::expression::parse(source, &Anything) {
        Ok(_) => Ok(()),
        Err(Problem::Wrong(why)) => Err(format!("{source:?} is no expression: {why}")),
        Err(Problem::Unserved(what)) => Err(format!("{source:?} is not served: {what}")),
    }
}

/// Names stand for nothing here: only that they are some is looked at.
struct Anything;

impl Terms for Anything {
    type Attribute = ();
    type Pattern = ();

    fn attribute(&self, _: &str) -> Option<()> {
        Some(())
    }

    fn header(&self, _: &str, _: &str) -> Option<()> {
        Some(())
    }

    fn pattern(&self, text: &str) -> Result<(), String> {
        let made = Regex::new(text).map(drop);
        made.map_err(|error| {
            let told = error.to_string();
            // The reason stands in the last line, below a drawing of the place.
            let reason = told.lines().last().unwrap_or_default();
            reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_waypoint_would_not_follow_is_said() {
        for good in [
            "response.code >= 400 || connection.mtls == false",
            "request.headers['x-user'].matches('^a')",
            "'x'",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (source, said) in [
            (
                "response.code >=",
                "\"response.code >=\" is no expression: it ends where a value should be",
            ),
            (
                "request.path.matches('(')",
                "\"request.path.matches('(')\" is no expression: unclosed group",
            ),
            (
                "response.cod == 1",
                "\"response.cod == 1\" is not served: response.cod",
            ),
        ] {
            assert_eq!(check(source), Err(said.to_owned()));
        }
    }
}
