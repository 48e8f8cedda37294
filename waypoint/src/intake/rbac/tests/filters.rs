//! Rules in force and on trial, and policies with a hole in them.

use super::*;

fn policy(permission: Rule, principal: Identifier) -> rbac::Policy {
    rbac::Policy {
        permissions: vec![allowed(permission)],
        principals: vec![who(principal)],
        ..Default::default()
    }
}

fn with(action: rbac::rbac::Action, policies: &[(&str, rbac::Policy)]) -> rbac::Rbac {
    let policies = policies.iter();
    rbac::Rbac {
        action: action as i32,
        policies: policies
            .map(|(name, policy)| ((*name).to_owned(), policy.clone()))
            .collect(),
        audit_logging_options: None,
    }
}

#[test]
fn rules_in_force_and_rules_on_trial_are_kept_apart() {
    let any = policy(Rule::Any(true), Identifier::Any(true));
    let filter = http::Rbac {
        rules: Some(with(
            rbac::rbac::Action::Deny,
            &[("b", any.clone()), ("a", any)],
        )),
        shadow_rules: Some(with(rbac::rbac::Action::Log, &[])),
        shadow_rules_stat_prefix: "istio_dry_run_deny_".into(),
        ..Default::default()
    };
    let mut notes = Notes::default();
    let compiled = crate::intake::rbac::http(filter, &mut notes).unwrap();
    let rules = compiled.rules.unwrap();
    assert_eq!(rules.action, Action::Deny);
    let names: Vec<_> = rules.policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(compiled.shadow.unwrap().action, Action::Log);
    assert_eq!(&*compiled.shadow_prefix, "istio_dry_run_deny_");
    assert!(notes.is_empty());
    assert!(
        crate::intake::rbac::http(http::Rbac::default(), &mut notes)
            .unwrap()
            .rules
            .is_none()
    );
}

#[test]
fn policies_with_a_hole_refuse_the_filter() {
    let any = || policy(Rule::Any(true), Identifier::Any(true));
    let mut unconditional = any();
    unconditional.condition = Some(Default::default());
    let mut nobody = any();
    nobody.principals.clear();
    for (policy, expected) in [
        (
            unconditional,
            "rules.policies[\"p\"].condition: is not served: conditions in CEL",
        ),
        (
            nobody,
            "rules.policies[\"p\"].principals: must not be empty",
        ),
    ] {
        let filter = http::Rbac {
            rules: Some(with(rbac::rbac::Action::Allow, &[("p", policy)])),
            ..Default::default()
        };
        let refused = crate::intake::rbac::http(filter, &mut Notes::default())
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
    let tree = http::Rbac {
        matcher: Some(Default::default()),
        ..Default::default()
    };
    let refused = crate::intake::rbac::http(tree, &mut Notes::default())
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("matcher: is not served"), "{refused}");
    let mut odd = with(rbac::rbac::Action::Allow, &[]);
    odd.action = 9;
    let odd = http::Rbac {
        shadow_rules: Some(odd),
        ..Default::default()
    };
    let refused = crate::intake::rbac::http(odd, &mut Notes::default())
        .unwrap_err()
        .to_string();
    assert!(refused.starts_with("shadow_rules.action: 9"), "{refused}");
}

#[test]
fn a_connection_has_no_headers_paths_or_claims() {
    let network = |permission, principal| {
        let filter = network::Rbac {
            rules: Some(with(
                rbac::rbac::Action::Deny,
                &[("p", policy(permission, principal))],
            )),
            stat_prefix: "tcp.".into(),
            ..Default::default()
        };
        crate::intake::rbac::network(filter, &mut Notes::default())
    };
    assert!(
        network(
            Rule::DestinationPort(80),
            Identifier::FilterState(state(PEER))
        )
        .is_ok()
    );
    let hidden = rbac::permission::Set {
        rules: vec![allowed(Rule::NotRule(Box::new(allowed(Rule::Header(
            header("x"),
        )))))],
    };
    for (permission, principal) in [
        (Rule::OrRules(hidden), Identifier::Any(true)),
        (Rule::UrlPath(path("/")), Identifier::Any(true)),
        (Rule::Any(true), Identifier::Header(header("x"))),
        (
            Rule::Any(true),
            Identifier::SourcedMetadata(sourced(rbac::MetadataSource::Dynamic)),
        ),
    ] {
        let refused = network(permission, principal).unwrap_err().to_string();
        assert!(
            refused.starts_with("policies[\"p\"]: a connection has no"),
            "{refused}"
        );
    }
}
