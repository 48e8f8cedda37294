//! Tokens: every failure with Envoy's words, where tokens are found, what is passed on, and
//! requirements of several providers. Long because one table of failures and one of requirements
//! need the same providers and signer.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::model::jwt::{JwtRule, KeySource, TokenPlace};
use crate::model::route::RouteMatch;
use crate::model::text::TextMatch;

const NOW: u64 = 1_700_000_000;

/// Signs claims with a secret, under a key's name.
fn sign(secret: &str, kid: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(str::to_owned);
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn jwk(secret: &str, kid: &str) -> Value {
    json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": URL_SAFE_NO_PAD.encode(secret)})
}

fn provider(name: &str, secret: &str) -> Provider {
    let set = json!({"keys": [{"kty": "RSA", "use": "enc"}, jwk(secret, "k1")]}).to_string();
    Provider {
        name: name.into(),
        issuer: name.into(),
        audiences: vec![],
        subject: None,
        require_expiration: false,
        max_lifetime: None,
        clock_skew: Duration::from_secs(60),
        keys: KeySource::Inline(keys::parse(set.as_bytes()).unwrap().0),
        from: vec![],
        forward: true,
        payload_header: None,
        pad_payload_header: false,
        claim_headers: vec![],
        payload_key: Some("payload".into()),
        header_key: None,
        space_delimited: vec!["scope".into()],
        clear_route_cache: true,
    }
}

fn filter(providers: Vec<Provider>, requires: Requirement) -> JwtAuthn {
    JwtAuthn {
        providers: providers.into_iter().map(Arc::new).collect(),
        rules: vec![JwtRule {
            matches: RouteMatch::default(),
            requires,
        }],
        named: vec![],
        bypass_cors_preflight: true,
    }
}

/// Has fetched these keys, or not yet, or in vain.
struct Fetched(Option<Result<Arc<KeySet>, Unreachable>>);

impl KeySets for Fetched {
    fn keys(&self, _: &Provider) -> Option<Result<Arc<KeySet>, Unreachable>> {
        self.0.clone()
    }
}

/// Remembers what it found good.
#[derive(Default)]
struct Remembers(RefCell<Seen>);

impl KeySets for Remembers {
    fn keys(&self, _: &Provider) -> Option<Result<Arc<KeySet>, Unreachable>> {
        None
    }

    fn seen(&self) -> Option<&RefCell<Seen>> {
        Some(&self.0)
    }
}

fn ask(
    filter: &JwtAuthn,
    path: &str,
    lines: &[(&'static str, &str)],
    keys: &dyn KeySets,
) -> Checked {
    let pairs = lines.iter();
    let headers: HeaderMap = pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "reviews",
        path,
        headers: &headers,
    };
    let ask = Ask {
        head: &head,
        metadata: &Metadata::default(),
        caller: None,
        random: 0,
    };
    check(filter, &FilterOverrides::default(), ask, NOW, keys)
}

/// What is said of a request with this token, in short.
fn said(filter: &JwtAuthn, token: Option<&str>) -> String {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let lines = bearer.iter().map(|value| ("authorization", value.as_str()));
    match ask(filter, "/a?b", &lines.collect::<Vec<_>>(), &Fetched(None)) {
        Checked::Pass(_) => "ok".to_owned(),
        Checked::Fetch(_) => "fetch".to_owned(),
        Checked::Deny(denial) => {
            let realm = denial.authenticate.unwrap();
            let expected = match denial.body {
                "Jwt is missing" => r#"Bearer realm="http://reviews/a?b""#,
                _ => r#"Bearer realm="http://reviews/a?b", error="invalid_token""#,
            };
            assert_eq!(realm, expected);
            format!("{} {}", denial.status.as_u16(), denial.body)
        }
    }
}

fn changes(filter: &JwtAuthn, path: &str, lines: &[(&'static str, &str)]) -> Changes {
    match ask(filter, path, lines, &Fetched(None)) {
        Checked::Pass(changes) => changes,
        other => panic!("not passed: {other:?}"),
    }
}

#[test]
fn every_failure_in_envoys_words() {
    let mut me = provider("me", "s1");
    me.audiences = vec!["https://book/".into()];
    let filter = filter(vec![me], Requirement::Provider(0, vec![]));
    let with = |claims: Value| sign("s1", Some("k1"), &claims);
    let raw = |header: Value, payload: Value| {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(payload))
    };
    let hs = json!({"alg": "HS256"});
    let good = json!({"iss": "me", "aud": "book", "exp": NOW + 10});
    for (token, expected) in [
        (with(good.clone()), "ok"),
        (
            with(json!({"iss": "me", "aud": ["x", "http://book"]})),
            "ok",
        ),
        (
            with(json!({"iss": "me", "aud": "book", "exp": NOW - 60})),
            "ok",
        ),
        (
            with(json!({"iss": "me", "aud": "book", "exp": NOW - 61})),
            "401 Jwt is expired",
        ),
        (
            with(json!({"iss": "me", "aud": "book", "nbf": NOW + 60})),
            "ok",
        ),
        (
            with(json!({"iss": "me", "aud": "book", "nbf": NOW + 61})),
            "401 Jwt not yet valid",
        ),
        (
            with(json!({"iss": "me", "aud": "y"})),
            "403 Audiences in Jwt are not allowed",
        ),
        (
            with(json!({"iss": "me"})),
            "403 Audiences in Jwt are not allowed",
        ),
        (
            with(json!({"iss": "you", "aud": "book"})),
            "401 Jwt issuer is not configured",
        ),
        (sign("s2", Some("k1"), &good), "401 Jwt verification fails"),
        (
            sign("s1", Some("k2"), &good),
            "401 Jwks doesn't have key to match kid or alg from Jwt",
        ),
        (sign("s1", None, &good), "ok"),
        (
            "a.b".into(),
            "401 Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (
            "a!.b.c".into(),
            "401 Jwt header is an invalid Base64url encoded",
        ),
        ("YQ.b.c".into(), "401 Jwt header is an invalid JSON"),
        (
            raw(json!({}), json!({})),
            "401 Jwt header [alg] field is required and must be a string",
        ),
        (
            raw(json!({"alg": "none"}), json!({})),
            "401 Jwt header [alg] is not supported",
        ),
        (
            raw(json!({"alg": "HS256", "kid": 1}), json!({})),
            "401 Jwt header [kid] field is not a string",
        ),
        (
            raw(hs.clone(), json!({"iss": 1})),
            "401 Jwt payload [iss] field is not a string",
        ),
        (
            raw(hs.clone(), json!({"exp": "soon"})),
            "401 Jwt payload [exp] field is not an integer",
        ),
        (
            raw(hs.clone(), json!({"exp": -1})),
            "401 Jwt payload [exp] field is not a positive 64 bit integer",
        ),
        (
            raw(hs, json!({"aud": [1]})),
            "401 Jwt payload [aud] field is not a string or string list",
        ),
    ] {
        assert_eq!(said(&filter, Some(&token)), expected, "{token}");
    }
    assert_eq!(said(&filter, None), "401 Jwt is missing");
    let denial = Denial {
        status: StatusCode::UNAUTHORIZED,
        body: "Jwt is missing",
        authenticate: None,
    };
    assert_eq!(denial.details(), "jwt_authn_access_denied{Jwt_is_missing}");
}

#[test]
fn a_token_for_another_algorithm_of_the_same_key_is_not_tried() {
    let mut header = Header::new(Algorithm::HS512);
    header.kid = Some("k1".to_owned());
    let key = EncodingKey::from_secret(b"s1");
    let token = jsonwebtoken::encode(&header, &json!({"iss": "me"}), &key).unwrap();
    let filter = filter(vec![provider("me", "s1")], Requirement::Provider(0, vec![]));
    let expected = "401 Jwks doesn't have key to match kid or alg from Jwt";
    assert_eq!(said(&filter, Some(&token)), expected);
}

#[test]
fn further_claims_can_be_demanded() {
    let mut me = provider("me", "s1");
    me.require_expiration = true;
    me.max_lifetime = Some(Duration::from_secs(100));
    me.subject = Some(TextMatch::prefix("jas"));
    let filter = filter(vec![me], Requirement::Provider(0, vec![]));
    for (claims, ok) in [
        (
            json!({"iss": "me", "sub": "jason", "iat": NOW, "exp": NOW + 100}),
            true,
        ),
        (
            json!({"iss": "me", "sub": "jason", "iat": NOW, "exp": NOW + 101}),
            false,
        ),
        (json!({"iss": "me", "sub": "jason"}), false),
        (json!({"iss": "me", "sub": "nobody", "exp": NOW + 1}), false),
    ] {
        let expected = if ok {
            "ok"
        } else {
            "401 Jwt verification fails"
        };
        assert_eq!(
            said(&filter, Some(&sign("s1", None, &claims))),
            expected,
            "{claims}"
        );
    }
}

#[test]
fn what_is_found_where_and_passed_on() {
    let token = sign(
        "s1",
        None,
        &json!({"iss": "me", "scope": "a  b", "n": 7, "f": 1.5, "list": ["a", 1], "deep": {"x": true}}),
    );
    let payload = token.split('.').nth(1).unwrap();
    let mut me = provider("me", "s1");
    me.forward = false;
    me.payload_header = Some("x-payload".parse().unwrap());
    me.header_key = Some("header".into());
    let claim = |header: &str, path: &str| (header.parse().unwrap(), path.into());
    me.claim_headers = vec![
        claim("x-iss", "iss"),
        claim("x-n", "n"),
        claim("x-f", "f"),
        claim("x-deep", "deep.x"),
        claim("x-list", "list"),
        claim("x-none", "none"),
    ];
    me.from = vec![
        TokenPlace::Header("x-token".parse().unwrap(), "T ".into()),
        TokenPlace::Query("t".into()),
        TokenPlace::Cookie("c".into()),
    ];
    let filter = filter(vec![me], Requirement::Provider(0, vec![]));
    let prefixed = format!("the T  {token}");
    let lines = [
        ("x-token", prefixed.as_str()),
        ("x-iss", "forged"),
        ("x-none", "forged"),
    ];
    let mut by_header = changes(&filter, "/", &lines);
    let removed: Vec<&str> = by_header.remove.iter().map(HeaderName::as_str).collect();
    assert_eq!(removed, ["x-iss", "x-none", "x-token"]);
    let set: Vec<(&str, &str)> = by_header
        .set
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let expected = [
        ("x-payload", payload),
        ("x-iss", "me"),
        ("x-n", "7"),
        ("x-f", "1.500000"),
        ("x-deep", "true"),
        ("x-list", "WyJhIiwxXQ=="),
    ];
    assert_eq!(set, expected);
    assert!(by_header.clear_route_cache);
    let mut metadata = Metadata::default();
    note(&mut by_header, &mut metadata);
    assert_eq!(
        metadata.get(FILTER, &["payload", "scope"]),
        Some(&json!(["a", "b"]))
    );
    assert_eq!(
        metadata.get(FILTER, &["header", "alg"]),
        Some(&json!("HS256"))
    );

    let by_query = changes(&filter, &format!("/p?a=1&t={token}&b=2"), &[]);
    assert_eq!(by_query.path.as_deref(), Some("/p?a=1&b=2"));
    let cookie = format!("a=b; c={token}");
    assert!(
        changes(&filter, "/", &[("cookie", &cookie)])
            .remove
            .is_empty()
    );
    assert_eq!(
        said(&filter, Some(&token)),
        "401 Jwt is missing",
        "not its place"
    );
}

#[test]
fn of_two_tokens_both_must_be_valid() {
    let filter = filter(vec![provider("me", "s1")], Requirement::Provider(0, vec![]));
    let good = sign("s1", None, &json!({"iss": "me"}));
    let bearer = format!("Bearer {good}");
    let both = |second: &str| {
        ask(
            &filter,
            &format!("/?access_token={second}"),
            &[("authorization", &bearer)],
            &Fetched(None),
        )
    };
    assert!(matches!(both(&good), Checked::Pass(_)));
    assert!(matches!(both("forged"), Checked::Deny(_)));
}

#[test]
fn a_token_seen_before_is_good_only_as_long_as_its_keys_and_its_time() {
    let remembers = Remembers::default();
    let build = |secret: &str| {
        filter(
            vec![provider("me", secret)],
            Requirement::Provider(0, vec![]),
        )
    };
    let passes = |filter: &JwtAuthn, token: &str| {
        let bearer = format!("Bearer {token}");
        let asked = ask(filter, "/", &[("authorization", &bearer)], &remembers);
        matches!(asked, Checked::Pass(_))
    };
    let (before, token) = (build("s1"), sign("s1", None, &json!({"iss": "me"})));
    assert!(passes(&before, &token) && passes(&before, &token));
    let keys = seen::Keys::inline(&before.providers[0]);
    assert!(remembers.0.borrow().has(&token, &keys), "it is remembered");
    // Its neighbour with another signature isn't it, and new keys mean that nothing is known.
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert!(!passes(&before, &forged));
    assert!(!remembers.0.borrow().has(&forged, &keys));
    assert!(!passes(&build("s2"), &token));
    assert!(passes(&build("s1"), &token));
    // A remembered token that has expired is refused all the same.
    let old = sign("s1", None, &json!({"iss": "me", "exp": NOW - 100}));
    remembers.0.borrow_mut().keep(&old, keys);
    assert!(!passes(&before, &old));
    let long = sign("s1", None, &json!({"iss": "me", "x": "x".repeat(4096)}));
    assert!(passes(&before, &long));
    let keys = seen::Keys::inline(&before.providers[0]);
    assert!(
        !remembers.0.borrow().has(&long, &keys),
        "it is too long to be kept"
    );
}

#[test]
fn requirements() {
    use Requirement::{All, AllowMissing, AllowMissingOrFailed, Any, Nothing, Provider as Of};
    let one = |at| Of(at, vec![]);
    let me = sign("s1", None, &json!({"iss": "me"}));
    let you = sign("s2", None, &json!({"iss": "you", "aud": "special"}));
    let bad = sign("s3", None, &json!({"iss": "me"}));
    let other = sign("s1", None, &json!({"iss": "other"}));
    // Answers for: no token, me, you, bad, another issuer.
    for (requirement, expected) in [
        (Nothing, "yyyyy"),
        (one(0), "-y---"),
        (Of(1, vec!["special".into()]), "--y--"),
        (Of(1, vec!["x".into()]), "-----"),
        (Any(vec![one(0), one(1)]), "-yy--"),
        (Any(vec![one(0), AllowMissing]), "yy---"),
        (Any(vec![one(0), one(1), AllowMissing]), "yyy--"),
        (Any(vec![AllowMissing]), "yyy--"),
        (Any(vec![one(0), AllowMissingOrFailed]), "yyyyy"),
        (AllowMissing, "yyy--"),
        (AllowMissingOrFailed, "yyyyy"),
        (All(vec![one(0), one(1)]), "-----"),
        (All(vec![one(0), AllowMissing]), "-y---"),
        (All(vec![]), "yyyyy"),
    ] {
        let shown = format!("{requirement:?}");
        let filter = filter(
            vec![provider("me", "s1"), provider("you", "s2")],
            requirement,
        );
        let found: String = [None, Some(&me), Some(&you), Some(&bad), Some(&other)]
            .map(|token| said(&filter, token.map(String::as_str)))
            .map(|said| if said == "ok" { 'y' } else { '-' })
            .iter()
            .collect();
        assert_eq!(found, expected, "{shown}");
    }
}

#[test]
fn keys_are_fetched_once_they_are_needed() {
    let mut remote = provider("me", "s1");
    let local = std::mem::replace(
        &mut remote.keys,
        KeySource::Remote {
            uri: "http://issuer/keys".into(),
            cluster: "issuer".into(),
            timeout: Duration::from_secs(5),
            cache: Duration::from_secs(300),
        },
    );
    let KeySource::Inline(local) = local else {
        panic!("the provider has inline keys");
    };
    let filter = filter(vec![remote], Requirement::Provider(0, vec![]));
    let bearer = |secret| format!("Bearer {}", sign(secret, None, &json!({"iss": "me"})));
    let with = |keys| {
        ask(
            &filter,
            "/",
            &[("authorization", &bearer("s1"))],
            &Fetched(keys),
        )
    };
    assert!(matches!(with(None), Checked::Fetch(_)));
    assert!(matches!(with(Some(Ok(Arc::new(local)))), Checked::Pass(_)));
    match with(Some(Err(Unreachable))) {
        Checked::Deny(denial) => assert_eq!(denial.body, "Jwks remote fetch is failed"),
        other => panic!("{other:?}"),
    }
    let empty = with(Some(Ok(Arc::new(KeySet::default()))));
    assert!(matches!(empty, Checked::Deny(denial) if denial.body.contains("any valid public key")));
}

#[test]
fn keys_of_elliptic_curves_verify() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let point = pair.public_key_raw();
    let (x, y) = point[1..].split_at(32);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)}]});
    let mut me = provider("me", "");
    me.keys = KeySource::Inline(keys::usable(set.to_string().as_bytes()).unwrap());
    let filter = filter(vec![me], Requirement::Provider(0, vec![]));
    let key = EncodingKey::from_ec_der(pair.serialized_der());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &json!({"iss": "me"}), &key);
    assert_eq!(said(&filter, Some(&token.unwrap())), "ok");
    assert_eq!(
        said(&filter, Some(&sign("", None, &json!({"iss": "me"}))))
            .split_once(' ')
            .unwrap()
            .0,
        "401"
    );
}

/// What signatures of tests are salted with.
struct Unchanging;

impl p521::elliptic_curve::rand_core::RngCore for Unchanging {
    fn next_u32(&mut self) -> u32 {
        1
    }

    fn next_u64(&mut self) -> u64 {
        1
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(1);
    }

    fn try_fill_bytes(
        &mut self,
        bytes: &mut [u8],
    ) -> Result<(), p521::elliptic_curve::rand_core::Error> {
        bytes.fill(1);
        Ok(())
    }
}

impl p521::elliptic_curve::rand_core::CryptoRng for Unchanging {}

#[test]
fn the_largest_curve_verifies_what_its_key_signed_and_nothing_else() {
    use p521::ecdsa::signature::RandomizedSigner as _;
    use p521::ecdsa::{Signature, SigningKey, VerifyingKey};

    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let pair = |seed: u8| {
        let mut scalar = [seed; 66];
        scalar[0] = 0;
        SigningKey::from_slice(&scalar).unwrap()
    };
    let token = |key: &SigningKey, algorithm: &str| {
        let header = json!({"alg": algorithm}).to_string();
        let claims = json!({"iss": "me"}).to_string();
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature: Signature = key.sign_with_rng(&mut Unchanging, signed.as_bytes());
        format!("{signed}.{}", encode(&signature.to_bytes()))
    };
    let (own, other) = (pair(7), pair(8));
    let point = VerifyingKey::from(&own).to_encoded_point(false);
    let (x, y) = (point.x().unwrap(), point.y().unwrap());
    let set = json!({"keys": [{"kty": "EC", "crv": "P-521", "x": encode(x), "y": encode(y)}]});
    let mut me = provider("me", "");
    me.keys = KeySource::Inline(keys::usable(set.to_string().as_bytes()).unwrap());
    let filter = filter(vec![me], Requirement::Provider(0, vec![]));
    let good = token(&own, "ES512");
    assert_eq!(said(&filter, Some(&good)), "ok");
    let (signed, _) = good.rsplit_once('.').unwrap();
    for (bad, why) in [
        (token(&other, "ES512"), "Jwt verification fails"),
        (token(&own, "ES384"), "match"),
        (
            format!("{signed}.{}", encode(&[0; 132])),
            "Jwt verification fails",
        ),
        (
            format!("{signed}.{}", encode(&[1; 64])),
            "Jwt verification fails",
        ),
    ] {
        let told = said(&filter, Some(&bad));
        assert!(told.starts_with("401 ") && told.contains(why), "{told}");
    }
}
