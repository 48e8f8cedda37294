//! Which chain takes a connection: a tree (`filter_chain_matcher`, which istiod gives
//! `main_internal`) → [`model::listener::Node`](crate::model::listener::Node), or the chains' own
//! conditions (`filter_chain_match`) →
//! [`model::listener::ChainMatch`](crate::model::listener::ChainMatch).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as envoy;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3::FilterStateInput;
use envoy_types::pb::google::protobuf::StringValue;
use envoy_types::pb::xds::core::v3::{CidrRange, TypedExtensionConfig};
use envoy_types::pb::xds::r#type::matcher::v3 as xds;
use ipnet::IpNet;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{plain, typed};
use crate::model::listener::{Chain, ChainMatch, Node, Protocol};
use crate::proto::matcher::{IpMatcher, ip_matcher::IpRangeMatcher};
use crate::unserved;

/// The filter state that has a tunnel's authority.
const AUTHORITY: &str = "io.istio.connect_authority";

/// How deep a tree may be. istiod's are four deep.
const DEPTH: usize = 16;

/// Chains by name.
pub(super) type Chains = HashMap<Arc<str>, Arc<Chain>>;

/// A tree.
///
/// # Errors
/// It looks at something that isn't known of a connection, or leads to a chain that isn't there.
pub(super) fn tree(
    matcher: xds::Matcher,
    chains: &Chains,
    depth: usize,
    notes: &mut Notes,
) -> Result<Node, Refused> {
    use xds::matcher::MatcherType;
    use xds::matcher::matcher_tree::TreeType;

    if depth >= DEPTH {
        return Err(Refused::new(format!("the tree is more than {DEPTH} deep")));
    }
    let xds::Matcher {
        on_no_match,
        matcher_type,
    } = matcher;
    let mut next = |found: xds::matcher::OnMatch| on_match(found, chains, depth, notes);
    let otherwise = match on_no_match {
        None => None,
        Some(found) => Some(Box::new(next(*found).at("on_no_match")?)),
    };
    let xds::matcher::MatcherTree { input, tree_type } = match matcher_type {
        Some(MatcherType::MatcherTree(tree)) => tree,
        Some(MatcherType::MatcherList(_)) => {
            let reason = "chains are chosen by trees, not by lists of conditions";
            return Err(Refused::new(reason).under("matcher_list"));
        }
        None => {
            // Nothing to look at: what comes otherwise comes always.
            return otherwise
                .map(|node| *node)
                .ok_or_else(|| Refused::new("must be set").under("matcher_tree"));
        }
    };
    let input = need(input, "matcher_tree.input")?;
    let config = need(input.typed_config, "matcher_tree.input.typed_config")?;
    let what = typed::name(&config);
    let what = what.strip_prefix(INPUTS).unwrap_or(what);
    let tree = need(tree_type, "matcher_tree.tree_type")?;
    match (what, tree) {
        ("DestinationIPInput", TreeType::CustomMatch(extension)) => {
            addresses(extension, otherwise, next).at("matcher_tree.custom_match")
        }
        ("DestinationIPInput", TreeType::ExactMatchMap(map)) => {
            let exact = entries(map, |key| plain::ip(&key), next)?;
            Ok(Node::Address {
                ranges: Vec::new(),
                exact: exact
                    .into_iter()
                    .map(|(ip, node)| (ip, Arc::new(node)))
                    .collect(),
                otherwise,
            })
        }
        ("DestinationPortInput", TreeType::ExactMatchMap(map)) => {
            let number = |key: String| key.parse::<u16>().map_err(|_| not(&key, "a port"));
            Ok(Node::Port {
                ports: entries(map, number, next)?.into_iter().collect(),
                otherwise,
            })
        }
        ("ApplicationProtocolInput", TreeType::ExactMatchMap(map)) => {
            protocols(map, otherwise, next)
        }
        ("FilterStateInput", TreeType::ExactMatchMap(map)) => {
            let FilterStateInput { key, field } =
                typed::unpack_whole(&config).at("matcher_tree.input.typed_config")?;
            if key != AUTHORITY || !field.is_empty() {
                let reason = format!("{key:?} is written down by nobody");
                let field = "matcher_tree.input.typed_config.key";
                return Err(Refused::new(reason).under(field));
            }
            let entries = entries(map, |key| Ok(Box::from(key)), &mut next)?;
            Ok(Node::Authority {
                authorities: entries.into_iter().collect(),
                otherwise,
            })
        }
        (other, TreeType::ExactMatchMap(_) | TreeType::CustomMatch(_)) => {
            let reason = format!("{other} isn't looked at in this way");
            Err(Refused::new(reason).under("matcher_tree.input"))
        }
        (_, TreeType::PrefixMatchMap(_)) => {
            let reason = "texts are compared as a whole";
            Err(Refused::new(reason).under("matcher_tree.prefix_match_map"))
        }
    }
}

const INPUTS: &str = "envoy.extensions.matching.common_inputs.network.v3.";

fn not(key: &str, what: &str) -> Refused {
    Refused::new(format!("{key:?} is not {what}"))
}

/// Where it leads: to a chain, or deeper into the tree.
fn on_match(
    found: xds::matcher::OnMatch,
    chains: &Chains,
    depth: usize,
    notes: &mut Notes,
) -> Result<Node, Refused> {
    use xds::matcher::on_match::OnMatch;

    let xds::matcher::OnMatch {
        keep_matching,
        on_match,
    } = found;
    unserved!(notes, "OnMatch": keep_matching);
    match need(on_match, "action")? {
        OnMatch::Matcher(matcher) => tree(*matcher, chains, depth + 1, notes).at("matcher"),
        OnMatch::Action(action) => {
            let config = need(action.typed_config, "action.typed_config")?;
            let StringValue { value } = typed::unpack_whole(&config).at("action.typed_config")?;
            let chain = chains.get(value.as_str()).ok_or_else(|| {
                Refused::new(format!("there is no chain {value:?}")).under("action")
            })?;
            Ok(Node::Chain(chain.clone()))
        }
    }
}

fn entries<K>(
    map: xds::matcher::matcher_tree::MatchMap,
    mut key: impl FnMut(String) -> Result<K, Refused>,
    mut next: impl FnMut(xds::matcher::OnMatch) -> Result<Node, Refused>,
) -> Result<Vec<(K, Node)>, Refused> {
    let entries = map.map.into_iter().map(|(text, found)| {
        let at = text.clone();
        let entry = key(text).and_then(|key| Ok((key, next(found)?)));
        entry.key(&at).at("matcher_tree.exact_match_map")
    });
    entries.collect()
}

fn addresses(
    extension: TypedExtensionConfig,
    otherwise: Option<Box<Node>>,
    mut next: impl FnMut(xds::matcher::OnMatch) -> Result<Node, Refused>,
) -> Result<Node, Refused> {
    let config = need(extension.typed_config, "typed_config")?;
    let IpMatcher { range_matchers } = typed::unpack_whole(&config).at("typed_config")?;
    let mut exact: HashMap<IpAddr, Arc<Node>> = HashMap::new();
    let mut ranges: Vec<(IpNet, Arc<Node>)> = Vec::new();
    let lists = each("range_matchers", range_matchers, |matcher| {
        let IpRangeMatcher {
            ranges,
            on_match,
            exclusive: _,
        } = matcher;
        let node = Arc::new(next(need(on_match, "on_match")?).at("on_match")?);
        let ranges = each("ranges", ranges, |range| {
            let CidrRange {
                address_prefix,
                prefix_len,
            } = range;
            plain::cidr(&address_prefix, plain::number(prefix_len))
        })?;
        Ok((ranges, node))
    });
    for (list, node) in lists.at("typed_config")? {
        for range in list {
            match range.prefix_len() == range.max_prefix_len() {
                // As in Envoy's trie, the first one that says something of an address counts.
                true => {
                    exact.entry(range.addr()).or_insert_with(|| node.clone());
                }
                false => ranges.push((range, node.clone())),
            }
        }
    }
    ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
    Ok(Node::Address {
        ranges,
        exact,
        otherwise,
    })
}

/// Envoy joins the protocols of a connection with commas and puts each in quotes; one is found out
/// here.
fn protocols(
    map: xds::matcher::matcher_tree::MatchMap,
    otherwise: Option<Box<Node>>,
    next: impl FnMut(xds::matcher::OnMatch) -> Result<Node, Refused>,
) -> Result<Node, Refused> {
    let protocol = |key: String| {
        Ok(match key.as_str() {
            "'http/1.0'" => Some(Protocol::Http10),
            "'http/1.1'" => Some(Protocol::Http11),
            "'h2c'" => Some(Protocol::Http2),
            // No connection is found to be that, so that it never matches.
            _ if key.starts_with('\'') && key.ends_with('\'') => None,
            _ => return Err(not(&key, "a protocol in quotes")),
        })
    };
    let entries = entries(map, protocol, next)?.into_iter();
    Ok(Node::Protocol {
        protocols: entries
            .filter_map(|(protocol, node)| Some((protocol?, node)))
            .collect(),
        otherwise,
    })
}

/// The conditions of a chain, one for each address, server name and source, so that they can be
/// put in order.
///
/// # Errors
/// A condition isn't served: without it the chain would take what it must not.
pub(super) fn conditions(
    conditions: envoy::FilterChainMatch,
    notes: &mut Notes,
) -> Result<Vec<ChainMatch>, Refused> {
    let envoy::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = conditions;
    unserved!(notes, "FilterChainMatch":
        address_suffix, suffix_len, direct_source_prefix_ranges, source_type);
    let names = each("server_names", server_names, |name| {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.").unwrap_or(&name).contains('*') {
            true => Err(not(&name, "a name, or one below *.")),
            false => Ok(name.into_boxed_str()),
        }
    })?;
    let whole = ChainMatch {
        port: match plain::number(destination_port) {
            None => None,
            Some(port) => Some(plain::port(port).at("destination_port")?),
        },
        addresses: each("prefix_ranges", prefix_ranges, plain::range)?,
        server_names: names,
        transport: Some(transport_protocol)
            .filter(|text| !text.is_empty())
            .map(Into::into),
        protocols: application_protocols.into_iter().map(Into::into).collect(),
        sources: each("source_prefix_ranges", source_prefix_ranges, plain::range)?,
        source_ports: each("source_ports", source_ports, plain::port)?,
    };
    let mut apart = vec![ChainMatch {
        addresses: Vec::new(),
        server_names: Vec::new(),
        sources: Vec::new(),
        ..whole.clone()
    }];
    apart = split(apart, &whole.addresses, |one, address| {
        one.addresses.push(*address)
    });
    apart = split(apart, &whole.server_names, |one, name| {
        one.server_names.push(name.clone())
    });
    apart = split(apart, &whole.sources, |one, source| {
        one.sources.push(*source)
    });
    Ok(apart)
}

/// Each of the conditions with each of the values, or as it is where there are none.
fn split<T>(
    conditions: Vec<ChainMatch>,
    values: &[T],
    add: impl Fn(&mut ChainMatch, &T),
) -> Vec<ChainMatch> {
    if values.is_empty() {
        return conditions;
    }
    let with = |condition: &ChainMatch, value: &T| {
        let mut condition = condition.clone();
        add(&mut condition, value);
        condition
    };
    let conditions = conditions.iter();
    conditions
        .flat_map(|condition| values.iter().map(move |value| (condition, value)))
        .map(|(condition, value)| with(condition, value))
        .collect()
}

/// The order of conditions: what says more of port, address, server name, transport, protocol and
/// source, in this order, comes first.
pub(super) fn specificity(condition: &ChainMatch) -> impl Ord + use<> {
    let longest = |ranges: &[IpNet]| ranges.first().map(|range| range.prefix_len() + 1);
    let name = condition
        .server_names
        .first()
        .map(|name| match name.strip_prefix("*.") {
            None => (true, 0),
            Some(suffix) => (false, suffix.len()),
        });
    std::cmp::Reverse((
        condition.port.is_some(),
        longest(&condition.addresses),
        name,
        condition.transport.is_some(),
        !condition.protocols.is_empty(),
        longest(&condition.sources),
        !condition.source_ports.is_empty(),
    ))
}

#[cfg(test)]
mod tests;
