//! An issuer's keys (JWKS, RFC 7517) as they come, inline or fetched. As Envoy does, a key that can't
//! be used is passed over, and why is told: issuers publish encryption keys and curves of tomorrow
//! beside the ones that count. A text that is no set at all is an error.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm as Usual;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use crate::model::jwt::{Algorithm, Key, KeySet, PublicKey};

/// The most keys that a set may have; Google's and Microsoft's have fewer than ten.
const MOST: usize = 256;

/// Why a text is no set of keys.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// It isn't JSON, or has no list of keys.
    #[error("is no JSON Web Key Set with a list under \"keys\": {0}")]
    Json(#[from] serde_json::Error),
    /// It has more than a set may have.
    #[error("has {0} keys, more than {MOST}")]
    TooMany(usize),
    /// None of its keys can be used.
    #[error(
        "has no key that can be used: RSA, EC (P-256, P-384, P-521), OKP (Ed25519) and oct keys are known, each with its parameters and an algorithm that fits; passed over: {0:?}"
    )]
    None(Vec<PassedOver>),
}

/// Why a key can't be used.
pub type PassedOver = &'static str;

/// Reads a set of keys, and says why keys of it were passed over.
///
/// # Errors
/// It isn't a set of keys, or one with too many. One with no key at all verifies nothing.
pub fn parse(text: &[u8]) -> Result<(KeySet, Vec<PassedOver>), BadKeys> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let Set { keys } = serde_json::from_slice(text)?;
    if keys.len() > MOST {
        return Err(BadKeys::TooMany(keys.len()));
    }
    let mut set = KeySet::default();
    let mut passed_over = Vec::new();
    for key in &keys {
        match self::key(key) {
            Ok(key) => set.keys.push(key),
            Err(why) => passed_over.push(why),
        }
    }
    Ok((set, passed_over))
}

/// Reads a set of keys of which one at least can be used: a set that was fetched replaces one that
/// was good.
///
/// # Errors
/// As [`parse`], and where no key of it can be used.
pub fn usable(text: &[u8]) -> Result<KeySet, BadKeys> {
    let (set, passed_over) = parse(text)?;
    match set.keys.is_empty() {
        true => Err(BadKeys::None(passed_over)),
        false => Ok(set),
    }
}

/// One key, or why it is passed over.
fn key(key: &Value) -> Result<Key, PassedOver> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let kind = text("kty").ok_or("no kty")?;
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err("its use is not sig");
    }
    let bad = "it isn't what its kty says";
    let usual = |algorithms: &[Usual], key: Result<DecodingKey, _>| {
        let key = key.map_err(|_: jsonwebtoken::errors::Error| bad)?;
        let algorithms = algorithms.iter().copied().map(Algorithm::Usual);
        Ok::<_, PassedOver>((algorithms.collect::<Vec<_>>(), PublicKey::Usual(key)))
    };
    let (fitting, key) = match kind {
        "RSA" => {
            let (n, e) = (text("n").ok_or(bad)?, text("e").ok_or(bad)?);
            usual(RSA, DecodingKey::from_rsa_components(n, e))?
        }
        "EC" => {
            let (x, y) = (text("x").ok_or(bad)?, text("y").ok_or(bad)?);
            let algorithm = match text("crv").ok_or(bad)? {
                "P-256" => Usual::ES256,
                "P-384" => Usual::ES384,
                "P-521" => {
                    return Ok(Key {
                        id: text("kid").map(Into::into),
                        algorithms: algorithms(text("alg"), vec![Algorithm::Es512])?,
                        key: PublicKey::P521(Box::new(p521(x, y).ok_or(bad)?)),
                    });
                }
                _ => return Err("its curve is none of P-256, P-384 and P-521"),
            };
            usual(&[algorithm], DecodingKey::from_ec_components(x, y))?
        }
        "OKP" if text("crv") == Some("Ed25519") => {
            let x = text("x").ok_or(bad)?;
            usual(&[Usual::EdDSA], DecodingKey::from_ed_components(x))?
        }
        "OKP" => return Err("its curve is not Ed25519"),
        "oct" => {
            let secret = URL_SAFE_NO_PAD.decode(text("k").ok_or(bad)?.trim_end_matches('='));
            let secret = secret.map_err(|_| bad)?;
            if secret.is_empty() {
                return Err(bad);
            }
            usual(SECRET, Ok(DecodingKey::from_secret(&secret)))?
        }
        _ => return Err("its kty is unknown"),
    };
    Ok(Key {
        id: text("kid").map(Into::into),
        algorithms: algorithms(text("alg"), fitting)?,
        key,
    })
}

/// The algorithm that a key names, which must fit it; else all that do.
fn algorithms(named: Option<&str>, fitting: Vec<Algorithm>) -> Result<Vec<Algorithm>, PassedOver> {
    let Some(name) = named else {
        return Ok(fitting);
    };
    let named: Algorithm = name.parse().map_err(|_| "its alg is unknown")?;
    match fitting.contains(&named) {
        true => Ok(vec![named]),
        false => Err("its alg doesn't fit its kty"),
    }
}

/// A point on P-521, each of whose coordinates has as many bytes as the curve (RFC 7518, section 6.2.1).
fn p521(x: &str, y: &str) -> Option<p521::ecdsa::VerifyingKey> {
    const UNCOMPRESSED: u8 = 4;
    const LENGTH: usize = 66;

    let mut point = vec![UNCOMPRESSED];
    for coordinate in [x, y] {
        let bytes = URL_SAFE_NO_PAD.decode(coordinate).ok()?;
        if bytes.len() != LENGTH {
            return None;
        }
        point.extend(bytes);
    }
    p521::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok()
}

const RSA: &[Usual] = &[
    Usual::RS256,
    Usual::RS384,
    Usual::RS512,
    Usual::PS256,
    Usual::PS384,
    Usual::PS512,
];

const SECRET: &[Usual] = &[Usual::HS256, Usual::HS384, Usual::HS512];

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys from the examples of RFC 7517 (appendix A), RFC 8037 and RFC 7515, public parts.
    const KEYS: &str = r#"{"keys": [
        {"kty": "RSA", "kid": "r", "alg": "RS256", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"},
        {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "sig"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "EC", "crv": "P-521", "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk", "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"},
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
    ]}"#;

    #[test]
    fn keys_of_each_kind_verify_what_fits_them() {
        let (set, passed_over) = parse(KEYS.as_bytes()).unwrap();
        assert!(passed_over.is_empty(), "{passed_over:?}");
        let [rsa, ec, ed, large, secret] = set.keys.as_slice() else {
            panic!("there are five: {set:?}");
        };
        assert_eq!(large.algorithms, [Algorithm::Es512]);
        assert_eq!(rsa.id.as_deref(), Some("r"));
        for (key, expected) in [
            (rsa, &[Usual::RS256][..]),
            (ec, &[Usual::ES256]),
            (ed, &[Usual::EdDSA]),
            (secret, SECRET),
        ] {
            let expected: Vec<_> = expected.iter().copied().map(Algorithm::Usual).collect();
            assert_eq!(key.algorithms, expected);
        }
    }

    #[test]
    fn keys_that_envoy_passes_over_are_told() {
        for key in [
            r#"{}"#,
            r#"{"kty": "RSA"}"#,
            r#"{"kty": "DSA"}"#,
            r#"{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}"#,
            r#"{"kty": "EC", "crv": "P-192", "x": "AA", "y": "AA"}"#,
            r#"{"kty": "OKP", "crv": "Ed448", "x": "AA"}"#,
            r#"{"kty": "oct", "k": "AQ", "alg": "ES512"}"#,
            r#"{"kty": "oct", "k": ""}"#,
            r#"{"kty": "oct", "k": "AQ", "alg": "RS256"}"#,
            r#"{"kty": "oct", "k": "AQ", "alg": "none"}"#,
            r#"{"kty": "oct", "k": "AQ", "use": "enc"}"#,
            r#"{"kty": "RSA", "n": "!", "e": "AQAB"}"#,
        ] {
            let text = format!("{{\"keys\": [{key}]}}");
            let (set, passed_over) = parse(text.as_bytes()).unwrap();
            assert!(set.keys.is_empty() && passed_over.len() == 1, "{key}");
            let error = usable(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("has no key that can be used"), "{error}");
        }
    }

    #[test]
    fn a_text_that_is_no_set_is_refused_and_an_empty_one_verifies_nothing() {
        let (empty, _) = parse(br#"{"keys":[]}"#).unwrap();
        assert!(empty.keys.is_empty());
        assert!(usable(br#"{"keys":[]}"#).is_err());
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>"] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("is no JSON Web Key Set"), "{error}");
        }
        let many = format!("{{\"keys\": [{}1]}}", "1,".repeat(MOST));
        let error = parse(many.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "has 257 keys, more than 256");
    }
}
