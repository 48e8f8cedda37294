//! What the routes of one table have alike, kept once for all of them: control planes write the
//! same policy of retries and the same cluster on every route.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;

use super::error::Refused;
use super::retry;
use super::served::Notes;
use crate::model::route::Retry;

/// Policies that are compared with a new one; a table has one or two.
const RETRIES: usize = 4;

/// What was compiled of a table already.
#[derive(Debug, Default)]
pub(super) struct Alike {
    names: RefCell<HashSet<Arc<str>>>,
    retries: RefCell<Vec<(RetryPolicy, Arc<Retry>)>>,
}

impl Alike {
    /// The same name, kept once.
    pub(super) fn name(&self, name: Arc<str>) -> Arc<str> {
        let mut names = self.names.borrow_mut();
        if let Some(known) = names.get(&name) {
            return known.clone();
        }
        names.insert(name.clone());
        name
    }

    /// A policy of retries, compiled once.
    ///
    /// # Errors
    /// It can't be compiled.
    pub(super) fn retry(
        &self,
        policy: RetryPolicy,
        notes: &mut Notes,
    ) -> Result<Arc<Retry>, Refused> {
        let mut retries = self.retries.borrow_mut();
        if let Some((_, known)) = retries.iter().find(|(known, _)| *known == policy) {
            return Ok(known.clone());
        }
        let compiled = Arc::new(retry::policy(policy.clone(), notes)?);
        if retries.len() == RETRIES {
            retries.remove(0);
        }
        retries.push((policy, compiled.clone()));
        Ok(compiled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_kept_once() {
        let (alike, notes) = (Alike::default(), &mut Notes::default());
        let name = alike.name("reviews".into());
        assert!(Arc::ptr_eq(&name, &alike.name("reviews".into())));
        let policy = |retry_on: &str| RetryPolicy {
            retry_on: retry_on.to_owned(),
            ..RetryPolicy::default()
        };
        let five = alike.retry(policy("5xx"), notes).unwrap();
        assert!(Arc::ptr_eq(
            &five,
            &alike.retry(policy("5xx"), notes).unwrap()
        ));
        let reset = alike.retry(policy("reset"), notes).unwrap();
        assert!(reset.on.reset && !reset.on.server_error && five.on.server_error);
    }
}
