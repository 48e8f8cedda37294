//! An issuer's keys (JWKS, RFC 7517) as they come, inline or fetched. A key that can't be used is
//! left out, as long as another can: issuers publish encryption keys and curves of tomorrow beside
//! the ones that count.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::model::jwt::{Key, KeySet};

/// Why a text is no set of keys.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// It isn't JSON, or has no list of keys.
    #[error("the key set isn't JSON with a list under \"keys\"")]
    Json(#[from] serde_json::Error),
    /// None of its keys can be used.
    #[error(
        "none of the key set's {0} keys can be used: RSA, EC (P-256, P-384), OKP (Ed25519) and oct keys are known, each with its parameters and an algorithm that fits"
    )]
    None(usize),
}

/// Reads a set of keys.
///
/// # Errors
/// It isn't a set of keys, or none of them can be used.
pub fn parse(text: &[u8]) -> Result<KeySet, BadKeys> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(text)?;
    let total = set.keys.len();
    let keys: Vec<Key> = set.keys.into_iter().filter_map(key).collect();
    match keys.is_empty() {
        true => Err(BadKeys::None(total)),
        false => Ok(KeySet { keys }),
    }
}

/// One key, if it can be used.
fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let fitting = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) => AlgorithmFamily::Hmac.algorithms().to_vec(),
        _ => return None,
    };
    let algorithms = match jwk.common.key_algorithm {
        None => fitting,
        Some(named) => {
            let named = algorithm(named)?;
            fitting.contains(&named).then(|| vec![named])?
        }
    };
    Some(Key {
        id: jwk.common.key_id.map(String::into_boxed_str),
        algorithms,
        key,
    })
}

fn algorithm(named: KeyAlgorithm) -> Option<Algorithm> {
    Some(match named {
        KeyAlgorithm::HS256 => Algorithm::HS256,
        KeyAlgorithm::HS384 => Algorithm::HS384,
        KeyAlgorithm::HS512 => Algorithm::HS512,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::PS256 => Algorithm::PS256,
        KeyAlgorithm::PS384 => Algorithm::PS384,
        KeyAlgorithm::PS512 => Algorithm::PS512,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
        _ => return None,
    })
}
