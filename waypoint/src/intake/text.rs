//! Envoy's small matchers → [`model::text`](crate::model::text): texts, headers, shares, and
//! expressions with what replaces them.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as kind;
use http::HeaderName;
use regex::Regex;

use super::error::{At as _, Refused, need};
use super::plain;
use crate::model::text::{Fraction, HeaderKey, HeaderMatch, HeaderTest, Pattern, TextMatch};

/// A test of a text.
///
/// # Errors
/// It has no pattern, an empty one where Envoy allows none, a bad expression, or is an extension.
pub fn string(matcher: matcher::StringMatcher) -> Result<TextMatch, Refused> {
    use matcher::string_matcher::MatchPattern;

    let matcher::StringMatcher {
        ignore_case,
        match_pattern,
    } = matcher;
    let (pattern, field) = match need(match_pattern, "match_pattern")? {
        MatchPattern::Exact(text) => return Ok(of(Pattern::Exact(text.into()), ignore_case)),
        MatchPattern::SafeRegex(regex) => return self::regex(regex).at("safe_regex"),
        MatchPattern::Prefix(text) => (Pattern::Prefix(text.into()), "prefix"),
        MatchPattern::Suffix(text) => (Pattern::Suffix(text.into()), "suffix"),
        MatchPattern::Contains(text) => (Pattern::Contains(text.into()), "contains"),
        MatchPattern::Custom(core) => {
            let reason = format!("{:?}: texts are matched by no extension", core.name);
            return Err(Refused::new(reason).under("custom"));
        }
    };
    match &pattern {
        Pattern::Prefix(text) | Pattern::Suffix(text) | Pattern::Contains(text)
            if text.is_empty() =>
        {
            Err(Refused::new("must not be empty: it would match everything").under(field))
        }
        _ => Ok(of(pattern, ignore_case)),
    }
}

/// A test by an expression that must match the whole text.
///
/// # Errors
/// It is empty or none.
pub fn regex(matcher: matcher::RegexMatcher) -> Result<TextMatch, Refused> {
    TextMatch::regex(&expression(matcher)?).map_err(|reason| Refused::new(reason).under("regex"))
}

/// An expression that may match any part, and what replaces the parts: `\1` stands for the first
/// group.
///
/// # Errors
/// The expression is none, or the replacement names a group that it doesn't have.
pub fn substitution(
    value: matcher::RegexMatchAndSubstitute,
) -> Result<(Box<Regex>, Box<str>), Refused> {
    let matcher::RegexMatchAndSubstitute {
        pattern,
        substitution,
    } = value;
    let expression = expression(need(pattern, "pattern")?).at("pattern")?;
    let regex = Regex::new(&expression).map_err(|error| {
        let reason = format!("{expression:?} is no valid expression: {error}");
        Refused::new(reason).under("pattern.regex")
    })?;
    replacement(&substitution, regex.captures_len()).at("substitution")?;
    Ok((Box::new(regex), substitution.into()))
}

/// Checks a replacement as RE2 does: a backslash stands before another or before a group's number.
fn replacement(text: &str, groups: usize) -> Result<(), Refused> {
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit as usize - '0' as usize;
                if group >= groups {
                    let reason = format!("\\{group}: the expression has {} groups", groups - 1);
                    return Err(Refused::new(reason));
                }
            }
            _ => return Err(Refused::new(format!("{text:?} has a stray backslash"))),
        }
    }
    Ok(())
}

fn expression(matcher: matcher::RegexMatcher) -> Result<String, Refused> {
    let matcher::RegexMatcher {
        regex,
        engine_type: _,
    } = matcher;
    match regex.is_empty() {
        true => Err(Refused::new("must not be empty").under("regex")),
        false => Ok(regex),
    }
}

fn of(pattern: Pattern, ignore_case: bool) -> TextMatch {
    TextMatch::new(pattern, ignore_case)
}

/// Which header, or part of the request line.
///
/// # Errors
/// There is no such header.
pub fn header_key(name: &str) -> Result<HeaderKey, Refused> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderKey::Method,
        ":path" => HeaderKey::Path,
        ":authority" | "host" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        name => HeaderKey::Name(plain::header_name(name)?),
    })
}

/// A test of a header.
///
/// # Errors
/// There is no such header, or the test is none.
#[expect(deprecated, reason = "istiod of earlier versions sends the old forms")]
pub fn header(matcher: route::HeaderMatcher) -> Result<HeaderMatch, Refused> {
    use route::header_matcher::HeaderMatchSpecifier as Specifier;

    let route::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = matcher;
    let text = |pattern| HeaderTest::Text(of(pattern, false));
    let test = match header_match_specifier {
        None => HeaderTest::Present(true),
        Some(Specifier::PresentMatch(present)) => HeaderTest::Present(present),
        Some(Specifier::StringMatch(matcher)) => {
            HeaderTest::Text(string(matcher).at("string_match")?)
        }
        Some(Specifier::SafeRegexMatch(matcher)) => {
            HeaderTest::Text(regex(matcher).at("safe_regex_match")?)
        }
        Some(Specifier::RangeMatch(kind::Int64Range { start, end })) => {
            HeaderTest::Range(start, end)
        }
        Some(Specifier::ExactMatch(exact)) => text(Pattern::Exact(exact.into())),
        Some(Specifier::PrefixMatch(prefix)) => text(Pattern::Prefix(prefix.into())),
        Some(Specifier::SuffixMatch(suffix)) => text(Pattern::Suffix(suffix.into())),
        Some(Specifier::ContainsMatch(part)) => text(Pattern::Contains(part.into())),
    };
    Ok(HeaderMatch {
        key: header_key(&name).at("name")?,
        test,
        invert: invert_match,
        missing_as_empty: treat_missing_header_as_empty,
    })
}

/// A share.
///
/// # Errors
/// Its denominator is none of Envoy's.
pub fn fraction(value: kind::FractionalPercent) -> Result<Fraction, Refused> {
    use kind::fractional_percent::DenominatorType;

    let kind::FractionalPercent {
        numerator,
        denominator,
    } = value;
    let per = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => {
            let reason = format!("{denominator} is no denominator");
            return Err(Refused::new(reason).under("denominator"));
        }
    };
    let millionths = numerator.saturating_mul(per).min(Fraction::ALWAYS.0);
    Ok(Fraction(millionths))
}

/// A share that could be overridden at runtime; there is no such runtime here.
///
/// # Errors
/// It has no value, or a bad one.
pub fn runtime_fraction(value: core::RuntimeFractionalPercent) -> Result<Fraction, Refused> {
    let core::RuntimeFractionalPercent {
        default_value,
        runtime_key: _,
    } = value;
    fraction(need(default_value, "default_value")?).at("default_value")
}

/// A share in percent with decimals.
///
/// # Errors
/// It isn't between 0 and 100.
pub fn percent(value: kind::Percent) -> Result<Fraction, Refused> {
    let kind::Percent { value } = value;
    if !(0.0..=100.0).contains(&value) {
        return Err(Refused::new(format!("{value} isn't between 0 and 100")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million"
    )]
    Ok(Fraction((value * 10_000.0).round() as u32))
}

/// Names of headers.
///
/// # Errors
/// One is none.
pub fn header_names(names: Vec<String>, field: &str) -> Result<Vec<HeaderName>, Refused> {
    super::error::each(field, names, |name| plain::header_name(&name))
}

#[cfg(test)]
mod tests {
    use matcher::string_matcher::MatchPattern;

    use super::*;

    fn text(match_pattern: MatchPattern) -> Result<TextMatch, Refused> {
        string(matcher::StringMatcher {
            ignore_case: true,
            match_pattern: Some(match_pattern),
        })
    }

    fn expression(regex: &str) -> matcher::RegexMatcher {
        matcher::RegexMatcher {
            regex: regex.into(),
            engine_type: None,
        }
    }

    #[test]
    fn each_pattern_becomes_its_own_and_keeps_the_case_flag() {
        assert!(text(MatchPattern::Exact("A".into())).unwrap().matches("a"));
        assert!(
            text(MatchPattern::Exact(String::new()))
                .unwrap()
                .matches("")
        );
        assert!(
            text(MatchPattern::Prefix("/A".into()))
                .unwrap()
                .matches("/ab")
        );
        assert!(
            text(MatchPattern::Suffix("B".into()))
                .unwrap()
                .matches("ab")
        );
        assert!(
            text(MatchPattern::Contains("B".into()))
                .unwrap()
                .matches("abc")
        );
        let regex = text(MatchPattern::SafeRegex(expression("A.*"))).unwrap();
        assert!(regex.matches("Abc") && !regex.matches("abc"));
    }

    #[test]
    fn bad_texts_are_refused_by_field() {
        for (pattern, told) in [
            (MatchPattern::Prefix(String::new()), "prefix: must not be"),
            (MatchPattern::Suffix(String::new()), "suffix: must not be"),
            (MatchPattern::Contains(String::new()), "contains: must not"),
            (
                MatchPattern::SafeRegex(expression("a(")),
                "safe_regex.regex: \"a(\" is no",
            ),
            (
                MatchPattern::SafeRegex(expression("")),
                "safe_regex.regex: must",
            ),
            (
                MatchPattern::SafeRegex(expression("(?=a)")),
                "safe_regex.regex: ",
            ),
            (MatchPattern::Custom(Default::default()), "custom: \"\""),
        ] {
            let refused = text(pattern).unwrap_err().to_string();
            assert!(refused.starts_with(told), "{refused}");
        }
    }

    #[test]
    fn a_replacement_names_groups_that_are_there() {
        let compile = |regex: &str, by: &str| {
            substitution(matcher::RegexMatchAndSubstitute {
                pattern: Some(expression(regex)),
                substitution: by.into(),
            })
        };
        assert!(compile("^/a/(.*)$", "/b/\\1\\\\").is_ok());
        for (regex, by, told) in [
            ("a", "\\1", "substitution: \\1: the expression has 0"),
            ("(a)", "\\2", "substitution: \\2: the expression has 1"),
            ("a", "x\\", "substitution: \"x\\\\\" has a stray"),
            ("a", "\\x", "substitution: "),
            ("(", "", "pattern.regex: "),
        ] {
            let refused = compile(regex, by).unwrap_err().to_string();
            assert!(refused.starts_with(told), "{refused}");
        }
    }

    #[test]
    fn headers_have_their_place_and_test() {
        let header = |name: &str| {
            header(route::HeaderMatcher {
                name: name.into(),
                ..Default::default()
            })
        };
        assert_eq!(header("Host").unwrap().key, HeaderKey::Authority);
        assert_eq!(header(":Path").unwrap().key, HeaderKey::Path);
        let ordinary = header("X-User").unwrap();
        assert_eq!(
            ordinary.key,
            HeaderKey::Name(HeaderName::from_static("x-user"))
        );
        assert!(matches!(ordinary.test, HeaderTest::Present(true)));
        assert!(header("").is_err() && header(":odd").is_err());
    }

    #[test]
    fn shares_are_millionths() {
        let share = |numerator, denominator| {
            fraction(kind::FractionalPercent {
                numerator,
                denominator,
            })
        };
        assert_eq!(share(1, 0).unwrap(), Fraction(10_000));
        assert_eq!(share(1, 1).unwrap(), Fraction(100));
        assert_eq!(share(1, 2).unwrap(), Fraction(1));
        assert_eq!(share(u32::MAX, 0).unwrap(), Fraction::ALWAYS);
        assert!(share(1, 3).is_err());
        let percent = |value| percent(kind::Percent { value });
        assert_eq!(percent(0.5).unwrap(), Fraction(5_000));
        assert!(percent(-1.0).is_err() && percent(f64::NAN).is_err());
    }
}
