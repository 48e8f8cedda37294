//! How configuration describes text, chance and headers: the small matchers that routes, policies
//! and filters share. Envoy's `StringMatcher`, `HeaderMatcher` and `FractionalPercent`.

use http::HeaderName;
use rand::Rng;
use regex::Regex;

/// A test of one text.
#[derive(Debug, Clone)]
pub struct TextMatch {
    /// What it is compared with.
    pub pattern: Pattern,
    /// Whether ASCII case is ignored. Patterns are stored in lower case then; an expression never
    /// ignores case by this flag.
    pub ignore_case: bool,
}

/// What a text is compared with.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The whole text.
    Exact(Box<str>),
    /// Its beginning.
    Prefix(Box<str>),
    /// Its end.
    Suffix(Box<str>),
    /// Any part of it.
    Contains(Box<str>),
    /// An expression in RE2's syntax that must match the whole text.
    Regex(Box<Regex>),
}

/// A chance in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction(pub u32);

/// Which header, or which part of the request line by its HTTP/2 name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    /// `:method`
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`, in HTTP/1 the `Host` header.
    Authority,
    /// `:scheme`
    Scheme,
    /// An ordinary header; several values count as one, joined by commas.
    Name(HeaderName),
}

/// A test of one header.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    /// Which header.
    pub key: HeaderKey,
    /// What it must be.
    pub test: HeaderTest,
    /// The opposite is meant. A header that isn't there fails the test before inversion, except
    /// where `missing_as_empty`.
    pub invert: bool,
    /// A header that isn't there counts as an empty one.
    pub missing_as_empty: bool,
}

/// What a header must be.
#[derive(Debug, Clone)]
pub enum HeaderTest {
    /// There, or not there.
    Present(bool),
    /// Such a text.
    Text(TextMatch),
    /// A decimal number from the first (included) to the second (excluded).
    Range(i64, i64),
}

impl TextMatch {
    /// A test of the whole text, case and all.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self::new(Pattern::Exact(text.into()), false)
    }

    /// A test of the beginning of the text.
    #[must_use]
    pub fn prefix(text: &str) -> Self {
        Self::new(Pattern::Prefix(text.into()), false)
    }

    /// A test by a pattern, which is put into lower case where case is ignored.
    #[must_use]
    pub fn new(pattern: Pattern, ignore_case: bool) -> Self {
        let lower = |text: Box<str>| text.to_ascii_lowercase().into_boxed_str();
        let pattern = match pattern {
            pattern if !ignore_case => pattern,
            Pattern::Exact(text) => Pattern::Exact(lower(text)),
            Pattern::Prefix(text) => Pattern::Prefix(lower(text)),
            Pattern::Suffix(text) => Pattern::Suffix(lower(text)),
            Pattern::Contains(text) => Pattern::Contains(lower(text)),
            Pattern::Regex(regex) => Pattern::Regex(regex),
        };
        Self {
            pattern,
            ignore_case,
        }
    }

    /// A test by an expression that must match the whole text, as Envoy's `safe_regex` does.
    ///
    /// # Errors
    /// The expression's fault, in words.
    pub fn regex(expression: &str) -> Result<Self, String> {
        let whole = format!("^(?s-m:{expression})$");
        // The expression alone must be valid, or a stray bracket could close the one around it.
        Regex::new(expression)
            .and_then(|_| Regex::new(&whole))
            .map(|regex| Self::new(Pattern::Regex(Box::new(regex)), false))
            .map_err(|error| format!("{expression:?} is no valid expression: {error}"))
    }

    /// Whether the text passes.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (text, ignore) = (text.as_bytes(), self.ignore_case);
        let same = |left: &[u8], right: &[u8]| match ignore {
            true => left.eq_ignore_ascii_case(right),
            false => left == right,
        };
        match &self.pattern {
            Pattern::Exact(exact) => same(text, exact.as_bytes()),
            Pattern::Prefix(prefix) => text
                .get(..prefix.len())
                .is_some_and(|head| same(head, prefix.as_bytes())),
            Pattern::Suffix(suffix) => text
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|start| same(&text[start..], suffix.as_bytes())),
            Pattern::Contains(part) => {
                part.is_empty()
                    || text
                        .windows(part.len())
                        .any(|window| same(window, part.as_bytes()))
            }
            Pattern::Regex(regex) => {
                std::str::from_utf8(text).is_ok_and(|text| regex.is_match(text))
            }
        }
    }
}

impl Fraction {
    /// Always.
    pub const ALWAYS: Self = Self(1_000_000);
    /// Never.
    pub const NEVER: Self = Self(0);

    /// Whether chance has it this time.
    pub fn holds(self, rng: &mut impl Rng) -> bool {
        match self.0 {
            0 => false,
            millionths if millionths >= Self::ALWAYS.0 => true,
            millionths => rng.random_range(0..Self::ALWAYS.0) < millionths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: Pattern, ignore_case: bool, sample: &str) -> bool {
        TextMatch::new(pattern, ignore_case).matches(sample)
    }

    #[test]
    fn each_pattern_looks_at_its_part_of_the_text() {
        assert!(text(Pattern::Exact("Ab".into()), false, "Ab"));
        assert!(!text(Pattern::Exact("Ab".into()), false, "ab"));
        assert!(text(Pattern::Exact("Ab".into()), true, "aB"));
        assert!(text(Pattern::Prefix("/R".into()), true, "/reviews"));
        assert!(!text(Pattern::Prefix("/reviews".into()), false, "/r"));
        assert!(text(Pattern::Suffix(".com".into()), false, "a.com"));
        assert!(!text(Pattern::Suffix("a.com".into()), false, ".com"));
        assert!(text(Pattern::Contains("".into()), false, ""));
        assert!(text(Pattern::Contains("B".into()), true, "abc"));
        assert!(!text(Pattern::Prefix("é".into()), false, "è"));
    }

    #[test]
    fn an_expression_must_match_the_whole_text() {
        let jason = TextMatch::regex("^(.*?;)?(user=jason)(;.*)?$").unwrap();
        assert!(jason.matches("a=b;user=jason;c=d"));
        assert!(!jason.matches("xuser=jason"));
        assert!(!TextMatch::regex("a|b").unwrap().matches("ab"));
        assert!(TextMatch::regex(".*").unwrap().matches("two\nlines"));
        assert!(TextMatch::regex("a)|(b").is_err());
    }
}
