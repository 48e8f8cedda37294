//! What RBAC's two kinds of condition have in common: a permission asks of the request, a principal of
//! the caller, and both are put together in the same ways.

use super::super::api::{rbac, route};
use super::words::{permission, principal};

use rbac::permission::{Rule as Permit, Set as Permissions};
use rbac::principal::{Identifier, Set as Principals};

/// A condition.
pub(super) trait Term: Sized {
    /// Whether it asks of the request's destination; which of a rule's `when` it takes in.
    const OF_DESTINATION: bool;

    fn always() -> Self;
    fn all_of(terms: Vec<Self>) -> Self;
    fn any_of(terms: Vec<Self>) -> Self;
    fn not(self) -> Self;
    fn header(found: route::HeaderMatcher) -> Self;
}

impl Term for rbac::Permission {
    const OF_DESTINATION: bool = true;

    fn always() -> Self {
        permission(Permit::Any(true))
    }

    fn all_of(rules: Vec<Self>) -> Self {
        permission(Permit::AndRules(Permissions { rules }))
    }

    fn any_of(rules: Vec<Self>) -> Self {
        permission(Permit::OrRules(Permissions { rules }))
    }

    fn not(self) -> Self {
        permission(Permit::NotRule(Box::new(self)))
    }

    fn header(found: route::HeaderMatcher) -> Self {
        permission(Permit::Header(found))
    }
}

impl Term for rbac::Principal {
    const OF_DESTINATION: bool = false;

    fn always() -> Self {
        principal(Identifier::Any(true))
    }

    fn all_of(ids: Vec<Self>) -> Self {
        principal(Identifier::AndIds(Principals { ids }))
    }

    fn any_of(ids: Vec<Self>) -> Self {
        principal(Identifier::OrIds(Principals { ids }))
    }

    fn not(self) -> Self {
        principal(Identifier::NotId(Box::new(self)))
    }

    fn header(found: route::HeaderMatcher) -> Self {
        principal(Identifier::Header(found))
    }
}
