//! Descriptors of requests, which a `local_ratelimit` filter, a route or its host has made (`rate_limits`),
//! and the buckets that the filter keeps for them.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use route::rate_limit::action::ActionSpecifier;

use super::super::error::{At as _, Refused, each, need};
use super::super::served::Notes;
use super::super::{plain, text};
use super::bucket;
use crate::model::rate_limit::{Action, Described, Descriptors, HostLimits, Limit};
use crate::rate_limit::Buckets;
use crate::unserved;

/// The most values of one descriptor that have tokens of their own.
const MOST_VALUES: u32 = 10_000;

/// What a filter says of descriptors beside their buckets.
pub(super) struct Wanted {
    pub(super) own: Vec<route::RateLimit>,
    pub(super) stage: u32,
    pub(super) host: i32,
    pub(super) always_common: bool,
    pub(super) most: u32,
}

/// A filter's descriptors; none where it has no buckets for any.
///
/// # Errors
/// A bucket is none, a descriptor stands twice, or is made of what isn't looked at.
pub(super) fn of(
    descriptors: Vec<common::LocalRateLimitDescriptor>,
    wanted: Wanted,
    notes: &mut Notes,
) -> Result<Option<Box<Descriptors>>, Refused> {
    if descriptors.is_empty() {
        return Ok(None);
    }
    if wanted.most > MOST_VALUES {
        let reason = format!("{} is more than {MOST_VALUES}", wanted.most);
        return Err(Refused::new(reason).under("max_dynamic_descriptors"));
    }
    let most = usize::try_from(wanted.most).unwrap_or(usize::MAX);
    let mut buckets: Vec<Described> = each("descriptors", descriptors, |one| {
        described(one, most, notes)
    })?;
    for (index, one) in buckets.iter().enumerate() {
        if buckets[..index]
            .iter()
            .any(|other| other.entries == one.entries)
        {
            let refused = Refused::new("stands twice");
            return Err(refused).item(index).at("descriptors");
        }
    }
    buckets.sort_by_key(|one| std::cmp::Reverse(one.buckets.token()));
    let own = |limit: route::RateLimit| {
        let route::RateLimit {
            stage: _,
            disable_key,
            actions,
            limit,
            hits_addend,
            apply_on_stream_done,
            x_ratelimit_option: _,
        } = limit;
        unserved!(notes, "LocalRateLimit.RateLimit":
            disable_key, limit, hits_addend, apply_on_stream_done);
        Ok(Limit {
            stage: wanted.stage,
            actions: each("actions", actions, action)?,
        })
    };
    Ok(Some(Box::new(Descriptors {
        own: each("rate_limits", wanted.own, own)?,
        stage: wanted.stage,
        host: match common::VhRateLimitsOptions::try_from(wanted.host) {
            Ok(common::VhRateLimitsOptions::Override) => HostLimits::Otherwise,
            Ok(common::VhRateLimitsOptions::Include) => HostLimits::Too,
            Ok(common::VhRateLimitsOptions::Ignore) => HostLimits::No,
            Err(_) => {
                let reason = format!("{} is none", wanted.host);
                return Err(Refused::new(reason).under("vh_rate_limits"));
            }
        },
        buckets,
        always_common: wanted.always_common,
    })))
}

fn described(
    descriptor: common::LocalRateLimitDescriptor,
    most: usize,
    notes: &mut Notes,
) -> Result<Described, Refused> {
    let common::LocalRateLimitDescriptor {
        entries,
        token_bucket,
        shadow_mode,
    } = descriptor;
    unserved!(notes, "LocalRateLimitDescriptor": shadow_mode);
    if entries.is_empty() {
        return Err(Refused::new("must not be empty").under("entries"));
    }
    let bucket = bucket(need(token_bucket, "token_bucket")?).at("token_bucket")?;
    let entries: Vec<(Box<str>, Option<Box<str>>)> = entries
        .into_iter()
        .map(|common::rate_limit_descriptor::Entry { key, value }| {
            let value = Some(value).filter(|value| !value.is_empty());
            (key.into(), value.map(Into::into))
        })
        .collect();
    let open = entries.iter().any(|(_, value)| value.is_none());
    Ok(Described {
        buckets: match open {
            true => Buckets::each(&bucket, most),
            false => Buckets::One(bucket),
        },
        entries,
    })
}

/// What a route or its host has made of requests. One that is made of what isn't looked at is left out:
/// other filters may be meant, and its requests take tokens of all requests.
///
/// # Errors
/// An action is none.
pub(in super::super) fn on_routes(
    limits: Vec<route::RateLimit>,
    notes: &mut Notes,
) -> Result<Vec<Limit>, Refused> {
    let one = |limit: route::RateLimit| {
        let route::RateLimit {
            stage,
            disable_key,
            actions,
            limit,
            hits_addend,
            apply_on_stream_done,
            x_ratelimit_option,
        } = limit;
        unserved!(notes, "route.RateLimit":
            limit, hits_addend, apply_on_stream_done, x_ratelimit_option);
        if let Some(unknown) = actions.iter().find_map(unknown) {
            let reason = "its descriptors are never made, and have no tokens of their own";
            notes.count(format!("RateLimit.Action.{unknown}"), reason);
            return Ok(None);
        }
        let actions = each("actions", actions, action)?;
        let stage = plain::number(stage).unwrap_or(0);
        // As Envoy's filter: who could be switched off is.
        Ok(disable_key.is_empty().then_some(Limit { stage, actions }))
    };
    let limits = each("rate_limits", limits, one)?;
    Ok(limits.into_iter().flatten().collect())
}

/// The name of an action that looks at what isn't known here.
fn unknown(action: &route::rate_limit::Action) -> Option<&'static str> {
    #[expect(deprecated, reason = "every action is decided about")]
    Some(match action.action_specifier.as_ref()? {
        ActionSpecifier::SourceCluster(_) => "source_cluster",
        ActionSpecifier::DynamicMetadata(_) => "dynamic_metadata",
        ActionSpecifier::Metadata(_) => "metadata",
        ActionSpecifier::Extension(_) => "extension",
        ActionSpecifier::QueryParameterValueMatch(_) => "query_parameter_value_match",
        ActionSpecifier::RemoteAddressMatch(_) => "remote_address_match",
        _ => return None,
    })
}

fn action(action: route::rate_limit::Action) -> Result<Action, Refused> {
    use route::rate_limit::action as of;

    if let Some(unknown) = unknown(&action) {
        return Err(Refused::new("descriptors aren't made of it").under(unknown));
    }
    let filled = |text: String, field: &str| match text.is_empty() {
        true => Err(Refused::new("must not be empty").under(field)),
        false => Ok(text.into_boxed_str()),
    };
    let key_or = |key: String, usual: &str| match key.is_empty() {
        true => usual.into(),
        false => key.into_boxed_str(),
    };
    Ok(match need(action.action_specifier, "action_specifier")? {
        ActionSpecifier::RequestHeaders(of::RequestHeaders {
            header_name,
            descriptor_key,
            skip_if_absent,
        }) => Action::Header {
            header: text::header_key(&header_name).at("request_headers.header_name")?,
            key: filled(descriptor_key, "request_headers.descriptor_key")?,
            optional: skip_if_absent,
        },
        ActionSpecifier::QueryParameters(of::QueryParameters {
            query_parameter_name,
            descriptor_key,
            skip_if_absent,
        }) => Action::Query {
            name: filled(
                query_parameter_name,
                "query_parameters.query_parameter_name",
            )?,
            key: filled(descriptor_key, "query_parameters.descriptor_key")?,
            optional: skip_if_absent,
        },
        ActionSpecifier::RemoteAddress(of::RemoteAddress {}) => Action::RemoteAddress,
        ActionSpecifier::MaskedRemoteAddress(of::MaskedRemoteAddress {
            v4_prefix_mask_len,
            v6_prefix_mask_len,
        }) => {
            let length = |length, most: u8, field: &str| match plain::number(length) {
                None => Ok(most),
                Some(length) => match u8::try_from(length) {
                    Ok(length) if length <= most => Ok(length),
                    _ => Err(Refused::new(format!("{length} is more than {most}")).under(field)),
                },
            };
            Action::MaskedRemoteAddress {
                v4: length(v4_prefix_mask_len, 32, "v4_prefix_mask_len")
                    .at("masked_remote_address")?,
                v6: length(v6_prefix_mask_len, 128, "v6_prefix_mask_len")
                    .at("masked_remote_address")?,
            }
        }
        ActionSpecifier::GenericKey(of::GenericKey {
            descriptor_value,
            default_value: _,
            descriptor_key,
        }) => Action::Generic {
            key: key_or(descriptor_key, "generic_key"),
            value: filled(descriptor_value, "generic_key.descriptor_value")?,
        },
        ActionSpecifier::HeaderValueMatch(of::HeaderValueMatch {
            descriptor_value,
            default_value: _,
            descriptor_key,
            expect_match,
            headers,
        }) => Action::HeaderMatch {
            key: key_or(descriptor_key, "header_match"),
            value: filled(descriptor_value, "header_value_match.descriptor_value")?,
            expected: plain::on_or(expect_match, true),
            headers: each("headers", headers, text::header).at("header_value_match")?,
        },
        ActionSpecifier::DestinationCluster(of::DestinationCluster {}) => {
            Action::DestinationCluster
        }
        // Everything else was refused by its name.
        _ => return Err(Refused::new("descriptors aren't made of it")),
    })
}
