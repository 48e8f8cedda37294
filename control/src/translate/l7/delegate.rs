//! A route that delegates, and a route of its delegate → one route that does both.
//! (istio/istio, `pilot/pkg/model/virtualservice.go`, `mergeHTTPRoute`)

use crate::objects::virtual_service::{HttpMatch, HttpRoute, StringMatch};

/// The delegate's route under the root's matches; `None` where both can't hold. What the delegate
/// leaves open the root decides.
#[must_use]
pub fn delegated(root: &HttpRoute, mut inner: HttpRoute) -> Option<HttpRoute> {
    inner.r#match = match (root.r#match.as_slice(), inner.r#match.as_slice()) {
        ([], _) => inner.r#match,
        (outer, []) => outer.to_vec(),
        (outer, found) => {
            let pairs = outer
                .iter()
                .flat_map(|outer| found.iter().map(move |found| both(outer, found)));
            let pairs: Vec<HttpMatch> = pairs.flatten().collect();
            if pairs.is_empty() {
                return None;
            }
            pairs
        }
    };
    if inner.name.is_empty() {
        inner.name.clone_from(&root.name);
    } else if !root.name.is_empty() {
        inner.name = format!("{}-{}", root.name, inner.name);
    }
    inner.timeout = inner.timeout.or(root.timeout);
    macro_rules! inherit {
        ($($field:ident),*) => { $( inner.$field = inner.$field.take().or_else(|| root.$field.clone()); )* };
    }
    inherit!(
        rewrite,
        retries,
        fault,
        mirror,
        mirror_percent,
        mirror_percentage,
        cors_policy,
        headers
    );
    if inner.mirrors.is_empty() {
        inner.mirrors.clone_from(&root.mirrors);
    }
    Some(inner)
}

/// Both at once; `None` where they name different values for one thing.
fn both(outer: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    let mut made = inner.clone();
    made.uri = narrowed(outer.uri.as_ref(), inner.uri.as_ref())?;
    made.scheme = same(outer.scheme.as_ref(), inner.scheme.as_ref())?;
    made.method = same(outer.method.as_ref(), inner.method.as_ref())?;
    made.authority = same(outer.authority.as_ref(), inner.authority.as_ref())?;
    made.port = match (outer.port, inner.port) {
        (Some(a), Some(b)) if a != b => return None,
        (a, b) => b.or(a),
    };
    for (from, into) in [
        (&outer.headers, &mut made.headers),
        (&outer.without_headers, &mut made.without_headers),
        (&outer.query_params, &mut made.query_params),
    ] {
        for (name, wanted) in from {
            if into
                .insert(name.clone(), wanted.clone())
                .is_some_and(|known| known != *wanted)
            {
                return None;
            }
        }
    }
    for (name, wanted) in &outer.source_labels {
        if made
            .source_labels
            .insert(name.clone(), wanted.clone())
            .is_some_and(|known| known != *wanted)
        {
            return None;
        }
    }
    if made.source_namespace.is_empty() {
        made.source_namespace.clone_from(&outer.source_namespace);
    } else if !outer.source_namespace.is_empty() && outer.source_namespace != made.source_namespace
    {
        return None;
    }
    if made.gateways.is_empty() {
        made.gateways.clone_from(&outer.gateways);
    }
    made.ignore_uri_case |= outer.ignore_uri_case;
    made.name = match (outer.name.as_str(), inner.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    };
    Some(made)
}

/// The delegate's path must lie within the root's.
fn narrowed(
    outer: Option<&StringMatch>,
    inner: Option<&StringMatch>,
) -> Option<Option<StringMatch>> {
    let (Some(outer), Some(inner)) = (outer, inner) else {
        return Some(inner.or(outer).cloned());
    };
    let within = match (&outer.prefix, &inner.prefix, &inner.exact) {
        (Some(prefix), Some(inner), _) => inner.starts_with(prefix),
        (Some(prefix), None, Some(inner)) => inner.starts_with(prefix),
        _ => outer == inner,
    };
    within.then(|| Some(inner.clone()))
}

fn same(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => None,
        (outer, inner) => Some(inner.or(outer).cloned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(value: serde_json::Value) -> HttpRoute {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn both_matches_must_hold() {
        let root = route(
            json!({"name": "r", "timeout": "5s", "match": [{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}}]}),
        );
        let merged = delegated(&root, route(json!({"name": "d", "match": [{"uri": {"prefix": "/a/b"}}, {"uri": {"exact": "/c"}}]}))).unwrap();
        assert_eq!(merged.name, "r-d");
        assert_eq!(merged.r#match.len(), 1);
        assert_eq!(
            merged.r#match[0].uri.as_ref().unwrap().prefix.as_deref(),
            Some("/a/b")
        );
        assert!(merged.r#match[0].headers.contains_key("x"));
        assert_eq!(merged.timeout, root.timeout);
        assert_eq!(
            delegated(&root, route(json!({"match": [{"uri": {"prefix": "/z"}}]}))),
            None
        );
        assert_eq!(
            delegated(
                &root,
                route(json!({"match": [{"headers": {"x": {"exact": "2"}}}]}))
            ),
            None
        );
        assert_eq!(
            delegated(&root, route(json!({}))).unwrap().r#match,
            root.r#match
        );
    }
}
