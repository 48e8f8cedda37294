//! A JSON Web Key Set (RFC 7517) → [`model::jwt::KeySet`](crate::model::jwt::KeySet). As Envoy
//! does, a key of an unknown kind or algorithm is passed over, and counted; a text that is no set
//! at all is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::error::Refused;
use super::served::Notes;
use crate::model::jwt::{Key, KeySet};

/// The most keys that a set may have; Google's and Microsoft's have fewer than ten.
const MOST: usize = 256;

/// A key set.
///
/// # Errors
/// The text is no JSON object with a list of keys, or has too many.
pub fn parse(text: &str, notes: &mut Notes) -> Result<KeySet, Refused> {
    let set: Value = serde_json::from_str(text)
        .map_err(|error| Refused::new(format!("is no JSON Web Key Set: {error}")))?;
    let Some(Value::Array(keys)) = set.get("keys") else {
        return Err(Refused::new(
            "is no JSON Web Key Set: it has no list of keys",
        ));
    };
    if keys.len() > MOST {
        let reason = format!("has {} keys, more than {MOST}", keys.len());
        return Err(Refused::new(reason));
    }
    let mut set = KeySet::default();
    for key in keys {
        match self::key(key) {
            Ok(key) => set.keys.push(key),
            Err(why) => notes.count(format!("JWKS key: {why}"), "Envoy passes it over too"),
        }
    }
    Ok(set)
}

/// One key, or why it is passed over.
fn key(key: &Value) -> Result<Key, &'static str> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let kind = text("kty").ok_or("no kty")?;
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err("its use is not sig");
    }
    let bad = "it isn't what its kty says";
    let (fitting, decoding): (&[Algorithm], _) = match kind {
        "RSA" => {
            let (n, e) = (text("n").ok_or(bad)?, text("e").ok_or(bad)?);
            (
                RSA,
                DecodingKey::from_rsa_components(n, e).map_err(|_| bad)?,
            )
        }
        "EC" => {
            let algorithm: &[Algorithm] = match text("crv").ok_or(bad)? {
                "P-256" => &[Algorithm::ES256],
                "P-384" => &[Algorithm::ES384],
                _ => return Err("its curve is neither P-256 nor P-384"),
            };
            let (x, y) = (text("x").ok_or(bad)?, text("y").ok_or(bad)?);
            (
                algorithm,
                DecodingKey::from_ec_components(x, y).map_err(|_| bad)?,
            )
        }
        "OKP" if text("crv") == Some("Ed25519") => {
            let x = text("x").ok_or(bad)?;
            (
                &[Algorithm::EdDSA],
                DecodingKey::from_ed_components(x).map_err(|_| bad)?,
            )
        }
        "OKP" => return Err("its curve is not Ed25519"),
        "oct" => {
            let secret = URL_SAFE_NO_PAD.decode(text("k").ok_or(bad)?.trim_end_matches('='));
            let secret = secret.map_err(|_| bad)?;
            if secret.is_empty() {
                return Err(bad);
            }
            (SECRET, DecodingKey::from_secret(&secret))
        }
        _ => return Err("its kty is unknown"),
    };
    let algorithms = match text("alg") {
        None => fitting.to_vec(),
        Some(name) => {
            let named: Algorithm = name.parse().map_err(|_| "its alg is unknown")?;
            match fitting.contains(&named) {
                true => vec![named],
                false => return Err("its alg doesn't fit its kty"),
            }
        }
    };
    Ok(Key {
        id: text("kid").map(Into::into),
        algorithms,
        key: decoding,
    })
}

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

const SECRET: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys from the examples of RFC 7517 (appendix A), RFC 8037 and RFC 7515, public parts.
    const KEYS: &str = r#"{"keys": [
        {"kty": "RSA", "kid": "r", "alg": "RS256", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"},
        {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "sig"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
    ]}"#;

    #[test]
    fn keys_of_each_kind_verify_what_fits_them() {
        let mut notes = Notes::default();
        let set = parse(KEYS, &mut notes).unwrap();
        assert!(notes.is_empty());
        let [rsa, ec, ed, secret] = set.keys.as_slice() else {
            panic!("there are four: {set:?}");
        };
        assert_eq!(rsa.id.as_deref(), Some("r"));
        assert_eq!(rsa.algorithms, [Algorithm::RS256]);
        assert_eq!(ec.algorithms, [Algorithm::ES256]);
        assert_eq!(ed.algorithms, [Algorithm::EdDSA]);
        assert_eq!(secret.algorithms, SECRET);
    }

    #[test]
    fn keys_that_envoy_passes_over_are_counted() {
        for key in [
            r#"{}"#,
            r#"{"kty": "RSA"}"#,
            r#"{"kty": "DSA"}"#,
            r#"{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}"#,
            r#"{"kty": "OKP", "crv": "Ed448", "x": "AA"}"#,
            r#"{"kty": "oct", "k": ""}"#,
            r#"{"kty": "oct", "k": "AQ", "alg": "RS256"}"#,
            r#"{"kty": "oct", "k": "AQ", "alg": "none"}"#,
            r#"{"kty": "oct", "k": "AQ", "use": "enc"}"#,
            r#"{"kty": "RSA", "n": "!", "e": "AQAB"}"#,
        ] {
            let mut notes = Notes::default();
            let set = parse(&format!("{{\"keys\": [{key}]}}"), &mut notes).unwrap();
            assert!(set.keys.is_empty() && notes.iter().count() == 1, "{key}");
        }
    }

    #[test]
    fn a_text_that_is_no_set_is_refused_and_an_empty_one_verifies_nothing() {
        let mut notes = Notes::default();
        assert!(parse(r#"{"keys":[]}"#, &mut notes).unwrap().keys.is_empty());
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>"] {
            let refused = parse(text, &mut notes).unwrap_err();
            assert!(
                refused.reason.starts_with("is no JSON Web Key Set"),
                "{refused}"
            );
        }
    }
}
