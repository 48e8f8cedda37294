//! Envoy's matchers of what filters wrote down (dynamic metadata: the claims of a token) →
//! [`model::policy::MetadataMatch`](crate::model::policy::MetadataMatch).

use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kind;

use super::error::{At as _, Refused, each, need};
use super::text;
use crate::model::policy::{MetadataMatch, ValueMatch};

/// How deep values may stand inside each other.
const DEPTH: usize = 16;

/// A test of a value that a filter wrote down.
///
/// # Errors
/// It has no filter, path or value.
pub fn matcher(matcher: matcher::MetadataMatcher) -> Result<MetadataMatch, Refused> {
    use matcher::metadata_matcher::PathSegment;
    use matcher::metadata_matcher::path_segment::Segment;

    let matcher::MetadataMatcher {
        filter,
        path,
        value,
        invert,
    } = matcher;
    if filter.is_empty() {
        return Err(Refused::new("must not be empty").under("filter"));
    }
    if path.is_empty() {
        return Err(Refused::new("must not be empty").under("path"));
    }
    let path = each("path", path, |PathSegment { segment }| {
        let Segment::Key(key) = need(segment, "key")?;
        Ok(key.into())
    })?;
    Ok(MetadataMatch {
        filter: filter.into(),
        path,
        value: self::value(need(value, "value")?, 0).at("value")?,
        invert,
    })
}

fn value(matcher: matcher::ValueMatcher, depth: usize) -> Result<ValueMatch, Refused> {
    use matcher::value_matcher::{MatchPattern, NullMatch};

    if depth >= DEPTH {
        return Err(Refused::new(format!("values are more than {DEPTH} deep")));
    }
    Ok(match need(matcher.match_pattern, "match_pattern")? {
        MatchPattern::NullMatch(NullMatch {}) => ValueMatch::Null,
        MatchPattern::DoubleMatch(number) => double(number).at("double_match")?,
        MatchPattern::StringMatch(text) => ValueMatch::Text(text::string(text).at("string_match")?),
        MatchPattern::BoolMatch(bool) => ValueMatch::Bool(bool),
        MatchPattern::PresentMatch(present) => ValueMatch::Present(present),
        MatchPattern::ListMatch(list) => {
            let matcher::list_matcher::MatchPattern::OneOf(element) =
                need(list.match_pattern, "list_match.one_of")?;
            let element = self::value(*element, depth + 1).at("list_match.one_of")?;
            ValueMatch::OneOf(Box::new(element))
        }
        MatchPattern::OrMatch(matcher::OrMatcher { value_matchers }) => {
            let any = each("value_matchers", value_matchers, |one| {
                self::value(one, depth + 1)
            });
            ValueMatch::Any(any.at("or_match")?)
        }
    })
}

fn double(number: matcher::DoubleMatcher) -> Result<ValueMatch, Refused> {
    use matcher::double_matcher::MatchPattern;

    Ok(match need(number.match_pattern, "exact")? {
        MatchPattern::Exact(number) => ValueMatch::Number(number),
        MatchPattern::Range(kind::DoubleRange { start, end }) => {
            ValueMatch::NumberRange(start, end)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(pattern: Option<matcher::value_matcher::MatchPattern>) -> matcher::MetadataMatcher {
        use matcher::metadata_matcher::PathSegment;
        use matcher::metadata_matcher::path_segment::Segment;

        let key = |key: &str| PathSegment {
            segment: Some(Segment::Key(key.into())),
        };
        matcher::MetadataMatcher {
            filter: "envoy.filters.http.jwt_authn".into(),
            path: vec![key("payload"), key("groups")],
            value: Some(matcher::ValueMatcher {
                match_pattern: pattern,
            }),
            invert: true,
        }
    }

    fn group(name: &str) -> matcher::value_matcher::MatchPattern {
        use matcher::string_matcher::MatchPattern::Exact;

        let text = matcher::StringMatcher {
            match_pattern: Some(Exact(name.into())),
            ..Default::default()
        };
        matcher::value_matcher::MatchPattern::StringMatch(text)
    }

    #[test]
    fn a_claim_that_is_a_list_or_a_text_as_istiod_writes_it() {
        use matcher::value_matcher::MatchPattern::{ListMatch, OrMatch};

        let value = |pattern| matcher::ValueMatcher {
            match_pattern: Some(pattern),
        };
        let element = Box::new(value(group("admin")));
        let list = matcher::ListMatcher {
            match_pattern: Some(matcher::list_matcher::MatchPattern::OneOf(element)),
        };
        let either = OrMatch(matcher::OrMatcher {
            value_matchers: vec![value(ListMatch(Box::new(list))), value(group("admin"))],
        });
        let compiled = matcher(claim(Some(either))).unwrap();
        assert!(compiled.invert);
        assert_eq!(compiled.path, ["payload".into(), "groups".into()]);
        let ValueMatch::Any(any) = compiled.value else {
            panic!("it is one of two");
        };
        assert!(matches!(&any[0], ValueMatch::OneOf(one) if matches!(**one, ValueMatch::Text(_))));
        assert!(matches!(&any[1], ValueMatch::Text(text) if text.matches("admin")));
    }

    #[test]
    fn a_test_without_a_value_path_or_filter_is_refused() {
        let mut no_path = claim(Some(group("a")));
        no_path.path.clear();
        let mut no_filter = claim(Some(group("a")));
        no_filter.filter.clear();
        for (matcher, told) in [
            (claim(None), "value.match_pattern: must be set"),
            (no_path, "path: must not"),
            (no_filter, "filter: must not"),
        ] {
            let refused = self::matcher(matcher).unwrap_err().to_string();
            assert!(refused.starts_with(told), "{refused}");
        }
    }
}
