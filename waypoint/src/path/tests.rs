//! Paths as Envoy 1.40 normalises them: every row was sent to it and is what it made of it, but for what
//! says otherwise.

use proptest::prelude::*;

use super::*;

const NORMALIZE: PathNormalisation = PathNormalisation {
    normalize: true,
    merge_slashes: false,
    escaped_slashes: EscapedSlashes::Keep,
};
const MERGE: PathNormalisation = PathNormalisation {
    normalize: false,
    merge_slashes: true,
    escaped_slashes: EscapedSlashes::Keep,
};
const BOTH: PathNormalisation = PathNormalisation {
    normalize: true,
    merge_slashes: true,
    escaped_slashes: EscapedSlashes::Keep,
};

fn path<'a>(path: &'a str, how: &PathNormalisation) -> Option<Cow<'a, str>> {
    match normalise(path, how) {
        Normalised::Path(path) => Some(path),
        Normalised::Redirect(_) | Normalised::Refused => None,
    }
}

#[test]
fn parameters_of_escaped_dots_go_too() {
    // Envoy leaves `/a/..;x/b` of it.
    assert_eq!(path("/a/%2e%2E;x/b", &NORMALIZE).as_deref(), Some("/b"));
    assert_eq!(path("/a/%2e;/b", &NORMALIZE).as_deref(), Some("/a/b"));
}

#[test]
fn dot_segments_and_spellings() {
    for (from, to) in [
        ("/", "/"),
        ("//", "//"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../a", "/a"),
        ("/a/..;/b", "/b"),
        ("/a/..;x=1;y/b", "/b"),
        ("/a/.;x", "/a/"),
        ("/a/b/..;/../c", "/c"),
        ("/a/;x/..b;/b..;", "/a/;x/..b;/b..;"),
        ("/a/..%3b/b", "/a/..%3b/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/../", "/"),
        ("/a//../b", "/a/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%41bc", "/Abc"),
        ("/a%7eb", "/a~b"),
        ("/a%20b", "/a%20b"),
        ("/a%2fb", "/a%2fb"),
        ("/a\\b", "/a/b"),
        ("/a\\..\\b", "/b"),
        ("/a%b", "/a%b"),
        ("/a%zz", "/a%zz"),
        ("/a%", "/a%"),
        ("/a?x=/../b", "/a?x=/../b"),
        ("/a//b///c", "/a//b///c"),
        ("/a|b", "/a%7Cb"),
        ("/a\"b", "/a%22b"),
        ("/a<b>", "/a%3Cb%3E"),
        ("/a^b", "/a%5Eb"),
        ("/a`b", "/a%60b"),
        ("/a{b}", "/a%7Bb%7D"),
        ("/a%C3%A9", "/a%C3%A9"),
        ("/a%c3%a9", "/a%c3%a9"),
        ("/a;b=../c", "/a;b=../c"),
        ("/...", "/..."),
        ("/a/.../b", "/a/.../b"),
        ("/a/..b", "/a/..b"),
        ("/a/b/../../../c", "/c"),
        ("/%2e%2e/a", "/a"),
        ("/a%3fb", "/a%3fb"),
        ("/a[b]", "/a[b]"),
        ("/a%2e%2e", "/a.."),
        ("/a/%2e%2e%2fb", "/a/..%2fb"),
        ("/a!$&()*+,:;=@b'", "/a!$&()*+,:;=@b'"),
        ("/a%21", "/a%21"),
        ("/a%2d%5f%30", "/a-_0"),
        ("/a/%5c../b", "/a/%5c../b"),
    ] {
        assert_eq!(path(from, &NORMALIZE).as_deref(), Some(to), "{from}");
    }
    for refused in ["/a%00b", "/a#b", "/a?b#c", "/é", "a/b"] {
        assert_eq!(path(refused, &NORMALIZE), None, "{refused}");
    }
}

#[test]
fn slashes_are_merged_last() {
    for (from, merged, both) in [
        ("//", "//", "//"),
        ("/a//b///c", "/a/b/c", "/a/b/c"),
        ("/a//../b", "/a/../b", "/a/b"),
        ("//a//", "/a/", "/a/"),
        ("/a//?b//c", "/a/?b//c", "/a/?b//c"),
    ] {
        assert_eq!(path(from, &MERGE).as_deref(), Some(merged), "{from}");
        assert_eq!(path(from, &BOTH).as_deref(), Some(both), "{from}");
    }
}

#[test]
fn escaped_slashes_are_kept_refused_or_undone() {
    let how = |escaped_slashes, normalize| PathNormalisation {
        normalize,
        merge_slashes: false,
        escaped_slashes,
    };
    let reject = how(EscapedSlashes::Reject, false);
    let redirect = how(EscapedSlashes::UnescapeAndRedirect, true);
    let forward = how(EscapedSlashes::UnescapeAndForward, false);
    for (from, redirected, forwarded) in [
        ("/a%2fb", "/a/b", "/a/b"),
        ("/a%2Fb?c%2fd", "/a/b?c%2fd", "/a/b?c%2fd"),
        ("/a%5cb", "/a/b", "/a\\b"),
        ("/a/%2e%2e%2fb", "/b", "/a/%2e%2e/b"),
        ("/a/%5c../b", "/a/b", "/a/\\../b"),
        ("/a/b%2f..%2fc", "/a/c", "/a/b/../c"),
    ] {
        assert_eq!(normalise(from, &reject), Normalised::Refused, "{from}");
        let to = Normalised::Redirect(redirected.to_owned());
        assert_eq!(normalise(from, &redirect), to, "{from}");
        assert_eq!(path(from, &forward).as_deref(), Some(forwarded), "{from}");
    }
    for untouched in ["/a?b%2fc", "/a%2", "/a%25"] {
        assert_eq!(path(untouched, &reject).as_deref(), Some(untouched));
        assert_eq!(path(untouched, &redirect).as_deref(), Some(untouched));
    }
}

proptest! {
    #[test]
    fn twice_is_once_and_no_dot_segment_is_left(from in "(/|\\\\|\\.|%2e|%2F|%5c|a|B|%41|\\?|\\{|%){0,24}") {
        let from = format!("/{from}");
        let Some(once) = path(&from, &BOTH) else {
            return Ok(());
        };
        let only = once.split('?').next().unwrap_or_default().to_owned();
        prop_assert!(only.split('/').all(|segment| !matches!(segment, "." | "..")), "{only}");
        let twice = path(&once, &BOTH);
        prop_assert_eq!(twice.as_deref(), Some(&*once));
    }

    #[test]
    fn what_is_canonical_is_borrowed(from in "(/[a-z]{1,5}){1,5}(\\?[a-z=&/]{0,9})?") {
        prop_assert!(matches!(path(&from, &BOTH), Some(Cow::Borrowed(_))));
    }
}
