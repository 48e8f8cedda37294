//! Changes to headers → [`model::route::HeaderChanges`](crate::model::route::HeaderChanges).

use envoy_types::pb::envoy::config::core::v3 as core;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{format, plain, text};
use crate::model::format::{Format, Part};
use crate::model::route::{HeaderChanges, HeaderSet, SetAction};

/// The four lists that routes, hosts, tables and weighted clusters have.
pub(super) struct Lists {
    /// `request_headers_to_add`
    pub(super) request_add: Vec<core::HeaderValueOption>,
    /// `request_headers_to_remove`
    pub(super) request_remove: Vec<String>,
    /// `response_headers_to_add`
    pub(super) response_add: Vec<core::HeaderValueOption>,
    /// `response_headers_to_remove`
    pub(super) response_remove: Vec<String>,
}

/// Changes to requests and answers.
///
/// # Errors
/// A name or value is none, or the header may not be changed so.
pub(super) fn changes(lists: Lists, notes: &mut Notes) -> Result<HeaderChanges, Refused> {
    let Lists {
        request_add,
        request_remove,
        response_add,
        response_remove,
    } = lists;
    for (names, field) in [
        (&request_remove, "request_headers_to_remove"),
        (&response_remove, "response_headers_to_remove"),
    ] {
        if let Some(name) = names.iter().find(|name| unchangeable(name)) {
            let reason = format!("{name:?} may not be removed; a request needs its host");
            return Err(Refused::new(reason).under(field));
        }
    }
    Ok(HeaderChanges {
        request_remove: text::header_names(request_remove, "request_headers_to_remove")?,
        request_set: each("request_headers_to_add", request_add, |one| set(one, notes))?,
        response_remove: text::header_names(response_remove, "response_headers_to_remove")?,
        response_set: each("response_headers_to_add", response_add, |one| {
            set(one, notes)
        })?,
    })
}

/// One header that is set.
///
/// # Errors
/// Its name or value is none, or it may not be set so.
pub(super) fn set(
    option: core::HeaderValueOption,
    notes: &mut Notes,
) -> Result<HeaderSet, Refused> {
    use core::header_value_option::HeaderAppendAction as Action;

    #[expect(deprecated, reason = "istiod of earlier versions sends the old form")]
    let core::HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = option;
    let core::HeaderValue {
        key,
        value,
        raw_value,
    } = need(header, "header")?;
    if unchangeable(&key) {
        let reason = format!("{key:?} is changed by rewriting the path or host, not as a header");
        return Err(Refused::new(reason).under("header.key"));
    }
    let name = plain::header_name(&key).at("header.key")?;
    let value = match raw_value.is_empty() {
        true => value,
        false => String::from_utf8(raw_value)
            .map_err(|_| Refused::new("is no UTF-8").under("header.raw_value"))?,
    };
    let value = format::parse(&value, notes).at("header.value")?;
    checked(&value).at("header.value")?;
    let action = match (append, Action::try_from(append_action)) {
        (Some(_), Ok(action)) if action != Action::AppendIfExistsOrAdd => {
            let reason = "append and append_action say it twice";
            return Err(Refused::new(reason).under("append"));
        }
        (Some(append), Ok(_)) if !append.value => SetAction::Overwrite,
        (_, Ok(Action::AppendIfExistsOrAdd)) => SetAction::Append,
        (_, Ok(Action::AddIfAbsent)) => SetAction::AddIfAbsent,
        (_, Ok(Action::OverwriteIfExistsOrAdd)) => SetAction::Overwrite,
        (_, Ok(Action::OverwriteIfExists)) => SetAction::OverwriteIfExists,
        (_, Err(_)) => {
            let reason = format!("{append_action} is no action");
            return Err(Refused::new(reason).under("append_action"));
        }
    };
    Ok(HeaderSet {
        name,
        value,
        action,
        keep_empty: keep_empty_value,
    })
}

/// Parts of the request line, which aren't headers.
fn unchangeable(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

/// The text in a value must be one that a header can have.
fn checked(value: &Format) -> Result<(), Refused> {
    for part in &value.parts {
        if let Part::Literal(text) = part {
            http::HeaderValue::from_str(text)
                .or_else(|_| http::HeaderValue::from_bytes(text.as_bytes()))
                .map_err(|_| Refused::new(format!("{text:?} can't stand in a header")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::BoolValue;

    use super::*;

    fn option(key: &str, value: &str, append_action: i32) -> core::HeaderValueOption {
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: key.into(),
                value: value.into(),
                ..Default::default()
            }),
            append_action,
            ..Default::default()
        }
    }

    #[test]
    fn each_action_becomes_its_own() {
        let action = |option| set(option, &mut Notes::default()).unwrap().action;
        assert_eq!(action(option("a", "b", 0)), SetAction::Append);
        assert_eq!(action(option("a", "b", 1)), SetAction::AddIfAbsent);
        assert_eq!(action(option("a", "b", 2)), SetAction::Overwrite);
        assert_eq!(action(option("a", "b", 3)), SetAction::OverwriteIfExists);
        #[expect(deprecated, reason = "the old form is what is tested")]
        for (append, expected) in [(true, SetAction::Append), (false, SetAction::Overwrite)] {
            let mut old = option("a", "b", 0);
            old.append = Some(BoolValue { value: append });
            assert_eq!(action(old), expected);
        }
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        for (option, told) in [
            (option("", "b", 0), "header.key: \"\" is no"),
            (option("a b", "b", 0), "header.key: \"a b\" is no"),
            (option(":path", "b", 0), "header.key: \":path\" is changed"),
            (option("Host", "b", 0), "header.key: \"Host\" is changed"),
            (
                option("a", "b\r\nc: d", 0),
                "header.value: \"b\\r\\nc: d\" can't",
            ),
            (
                option("a", "%x%", 0),
                "header.value: \"%x%\" has no operator",
            ),
            (option("a", "b", 9), "append_action: 9 is"),
            (core::HeaderValueOption::default(), "header: must be set"),
        ] {
            let refused = set(option, &mut Notes::default()).unwrap_err().to_string();
            assert!(refused.starts_with(told), "{refused}");
        }
        let lists = Lists {
            request_add: Vec::new(),
            request_remove: vec!["host".into()],
            response_add: Vec::new(),
            response_remove: Vec::new(),
        };
        let refused = changes(lists, &mut Notes::default()).unwrap_err();
        assert!(refused.to_string().contains("needs its host"), "{refused}");
    }
}
