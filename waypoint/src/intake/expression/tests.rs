//! What names and patterns stand for at a waypoint; the grammar is tested where it is.

use super::*;

#[test]
fn every_attribute_has_a_value_here() {
    for name in mesh::expression::ATTRIBUTES {
        assert!(parse(name).is_ok(), "{name}");
    }
    for (source, operator) in [
        ("request.headers['X-A']", "Request"),
        ("request.headers[':path']", "Request"),
        ("response.headers['x-a']", "Response"),
        ("response.trailers['x-a']", "Trailer"),
    ] {
        let root = format!("{:?}", parse(source).unwrap().root);
        assert!(
            root.starts_with(&format!("Attribute(Text({operator}")),
            "{root}"
        );
    }
}

#[test]
fn patterns_are_tried() {
    let wrong = parse("request.path.matches('(')").unwrap_err();
    let is_wrong = matches!(&wrong, Problem::Wrong(why) if why.starts_with("regex parse error"));
    assert!(is_wrong, "{wrong:?}");
    assert!(parse("request.path.matches('^/a')").is_ok());
}
