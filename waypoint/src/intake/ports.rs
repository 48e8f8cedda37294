//! Sets of ports, for the conditions under which a listener filter doesn't look at connections:
//! `or`, `and` and `not` over ranges become the ranges in which the condition holds.

use envoy_types::pb::envoy::config::listener::v3 as envoy;
use envoy_types::pb::envoy::r#type::v3 as kind;

use super::error::{At as _, Refused, each, need};

/// One more than the largest port.
const END: u32 = 65_536;

/// How deep conditions may stand inside each other.
const DEPTH: usize = 16;

/// Ranges of ports, the last excluded, in order and apart from each other.
pub(super) type Ports = Vec<(u16, u32)>;

/// The ports on which a condition holds.
///
/// # Errors
/// A condition is none.
pub(super) fn of(
    predicate: envoy::ListenerFilterChainMatchPredicate,
    depth: usize,
) -> Result<Ports, Refused> {
    use envoy::listener_filter_chain_match_predicate::{MatchSet, Rule};

    if depth >= DEPTH {
        return Err(Refused::new(format!(
            "conditions are more than {DEPTH} deep"
        )));
    }
    let several = |rules: Vec<_>| each("rules", rules, |rule| of(rule, depth + 1));
    Ok(match need(predicate.rule, "rule")? {
        Rule::AnyMatch(any) => match any {
            true => all(),
            false => Vec::new(),
        },
        Rule::OrMatch(MatchSet { rules }) => union(
            several(rules)
                .at("or_match")?
                .into_iter()
                .flatten()
                .collect(),
        ),
        Rule::AndMatch(MatchSet { rules }) => {
            let without = several(rules)
                .at("and_match")?
                .into_iter()
                .flat_map(complement);
            complement(union(without.collect()))
        }
        Rule::NotMatch(rule) => complement(of(*rule, depth + 1).at("not_match")?),
        Rule::DestinationPortRange(kind::Int32Range { start, end }) => {
            let first = u16::try_from(start).ok();
            let last = u32::try_from(end).ok().filter(|last| *last <= END);
            match (first, last) {
                (Some(first), Some(last)) if u32::from(first) < last => vec![(first, last)],
                _ => {
                    let reason = format!("{start} to {end} is no range of ports");
                    return Err(Refused::new(reason).under("destination_port_range"));
                }
            }
        }
    })
}

/// Every port.
pub(super) fn all() -> Ports {
    vec![(0, END)]
}

fn union(mut ranges: Ports) -> Ports {
    ranges.sort_unstable();
    let mut joined: Ports = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if u32::from(first) <= *end => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// The ports outside of ranges that are in order and apart from each other.
fn complement(ranges: Ports) -> Ports {
    let mut outside = Vec::with_capacity(ranges.len() + 1);
    let mut next = 0_u32;
    for (first, last) in ranges {
        if let (true, Ok(begin)) = (next < u32::from(first), u16::try_from(next)) {
            outside.push((begin, u32::from(first)));
        }
        next = last;
    }
    if let (true, Ok(begin)) = (next < END, u16::try_from(next)) {
        outside.push((begin, END));
    }
    outside
}

#[cfg(test)]
mod tests {
    use envoy::listener_filter_chain_match_predicate::{MatchSet, Rule};
    use proptest::prelude::*;

    use super::*;

    fn rule(rule: Rule) -> envoy::ListenerFilterChainMatchPredicate {
        envoy::ListenerFilterChainMatchPredicate { rule: Some(rule) }
    }

    fn range(start: i32, end: i32) -> envoy::ListenerFilterChainMatchPredicate {
        rule(Rule::DestinationPortRange(kind::Int32Range { start, end }))
    }

    fn any_rule() -> impl Strategy<Value = envoy::ListenerFilterChainMatchPredicate> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(|any| rule(Rule::AnyMatch(any))),
            (0..12_i32, 1..6_i32).prop_map(|(start, more)| range(start, start + more)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let set =
                || prop::collection::vec(inner.clone(), 1..4).prop_map(|rules| MatchSet { rules });
            prop_oneof![
                set().prop_map(|set| rule(Rule::OrMatch(set))),
                set().prop_map(|set| rule(Rule::AndMatch(set))),
                inner
                    .clone()
                    .prop_map(|one| rule(Rule::NotMatch(Box::new(one)))),
            ]
        })
    }

    /// The condition, said plainly.
    fn holds(predicate: &envoy::ListenerFilterChainMatchPredicate, port: u16) -> bool {
        match predicate.rule.as_ref().unwrap() {
            Rule::AnyMatch(any) => *any,
            Rule::OrMatch(set) => set.rules.iter().any(|rule| holds(rule, port)),
            Rule::AndMatch(set) => set.rules.iter().all(|rule| holds(rule, port)),
            Rule::NotMatch(rule) => !holds(rule, port),
            Rule::DestinationPortRange(range) => {
                (range.start..range.end).contains(&i32::from(port))
            }
        }
    }

    proptest! {
        #[test]
        fn ranges_say_the_same_as_the_condition(predicate in any_rule()) {
            let ports = of(predicate.clone(), 0).unwrap();
            for port in (0..24).chain([u16::MAX]) {
                let inside = ports.iter().any(|(first, last)| {
                    (u32::from(*first)..*last).contains(&u32::from(port))
                });
                prop_assert_eq!(inside, holds(&predicate, port), "{}: {:?}", port, ports);
            }
        }
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for bad in [
            range(-1, 2),
            range(5, 5),
            range(1, 65_537),
            range(70_000, 70_001),
        ] {
            let refused = of(rule(Rule::NotMatch(Box::new(bad))), 0).unwrap_err();
            let told = "not_match.destination_port_range: ";
            assert!(refused.to_string().starts_with(told), "{refused}");
        }
        let mut deep = range(1, 2);
        for _ in 0..DEPTH {
            deep = rule(Rule::NotMatch(Box::new(deep)));
        }
        assert!(of(deep, 0).is_err());
    }
}
