//! What is an expression, what isn't, and what is one that isn't served.

use super::*;

/// Names stand for themselves.
struct Names;

impl Terms for Names {
    type Attribute = String;
    type Pattern = String;

    fn attribute(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn header(&self, of: &str, name: &str) -> Option<String> {
        Some(format!("{of}[{name}]"))
    }

    fn pattern(&self, text: &str) -> Result<String, String> {
        match text {
            "(" => Err("an open bracket".to_owned()),
            text => Ok(text.to_owned()),
        }
    }
}

fn is(source: &str) -> String {
    match parse(source, &Names) {
        Ok(root) => format!("{root:?}"),
        Err(Problem::Wrong(why)) => format!("wrong: {why}"),
        Err(Problem::Unserved(what)) => format!("unserved: {what}"),
    }
}

#[test]
fn signs_bind_as_in_cel() {
    // Each is the same as the other with all of its brackets.
    for (plain, with_brackets) in [
        ("true || false && false", "true || (false && false)"),
        ("!true == false", "(!true) == false"),
        ("1 + 2 * 3 == 7 && true", "((1 + (2 * 3)) == 7) && true"),
        ("7 - 2 - 1", "(7 - 2) - 1"),
        ("true ? 1 : false ? 2 : 3", "true ? 1 : (false ? 2 : 3)"),
        ("'a' in ['a'] ? 1 : 2", "('a' in ['a']) ? 1 : 2"),
        ("-1 < 2 // a remark", "(-1) < 2"),
        ("request.method.size() > 2", "(request.method.size()) > 2"),
        (
            "request.headers.x == 'a'",
            "(request.headers['x']) == \"a\"",
        ),
    ] {
        assert_eq!(is(plain), is(with_brackets), "{plain}");
        assert!(parse(plain, &Names).is_ok(), "{plain}: {}", is(plain));
    }
}

#[test]
fn what_is_no_expression_is_told_from_what_is_not_served() {
    for (source, told) in [
        ("", "wrong: it ends where a value should be"),
        ("response.code >=", "wrong: it ends where a value should be"),
        ("response.code >= 400)", "wrong: \")\" where it should end"),
        ("(true", "wrong: no \")\" where one should be"),
        ("'open", "wrong: a text that doesn't end"),
        ("a $ b", "wrong: '$' is no part of an expression"),
        ("1.2.3", "wrong: no name after a dot"),
        (
            "99999999999999999999",
            "wrong: \"99999999999999999999\" is no number",
        ),
        ("request.headers['a b']", "wrong: \"a b\" is no header"),
        (
            "duration('soon') < request.duration",
            "wrong: \"soon\" is no duration",
        ),
        (
            "request.path.startsWith()",
            "wrong: startsWith() has one argument",
        ),
        ("request.time > 0", "unserved: request.time"),
        ("request", "unserved: request"),
        ("request.headers == 1", "unserved: request.headers"),
        (
            "request.headers[request.method]",
            "unserved: an index that is no text",
        ),
        (
            "response.headers[':status']",
            "wrong: \":status\" is no header",
        ),
        ("[1].exists(x, x == 1)", "unserved: x"),
        (
            "has(request.path) && timestamp('x')",
            "unserved: timestamp()",
        ),
        ("{'a': 1}", "unserved: a map"),
        ("b'a' == b'a'", "unserved: a text with \"b\" before it"),
        ("'\\x41'", "unserved: the escape \\x"),
        (
            "request.path.matches(request.method)",
            "unserved: an expression to match that is no literal",
        ),
    ] {
        let said = is(source);
        assert!(said.starts_with(told), "{source}: {said}");
    }
    assert_eq!(is("request.path.matches('(')"), "wrong: an open bracket");
    assert_eq!(
        is("response.headers[':path']"),
        "unserved: response.headers[\":path\"]"
    );
}

#[test]
fn how_much_there_may_be_of_one_is_bounded() {
    let brackets = |count: usize| "(".repeat(count) + "true" + &")".repeat(count);
    assert_eq!(is(&brackets(DEPTH - 1)), is("true"));
    assert_eq!(
        is(&brackets(DEPTH)),
        "unserved: more than 24 brackets in each other"
    );
    let sum = |count: usize| vec!["1"; count].join("+");
    assert!(is(&sum(PARTS / 2)).starts_with("Pair"));
    assert_eq!(is(&sum(PARTS)), "unserved: more than 256 parts");
    assert_eq!(is(&"!".repeat(PARTS)), "unserved: more than 256 parts");
    let long = format!("'{}'", "x".repeat(LONGEST));
    assert_eq!(is(&long), "unserved: more than 4096 bytes");
}
