//! One token: taken apart and verified. Every failure has the words that Envoy has for it, because
//! people search for them.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use p521::ecdsa::signature::Verifier as _;
use serde_json::{Map, Value};

use crate::model::jwt::{Algorithm, KeySet, Provider, PublicKey};

/// base64url as Envoy reads it: with padding or without.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

macro_rules! failures {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// Why a token doesn't do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failure { $($(#[$doc])+ $name,)+ }

        impl Failure {
            /// Envoy's words for it.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

failures! {
    /// There is none.
    Missing = "Jwt is missing",
    /// Its time hasn't come.
    NotYetValid = "Jwt not yet valid",
    /// Its time is over.
    Expired = "Jwt is expired",
    /// It hasn't three parts.
    Format = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    /// Its header isn't base64url.
    HeaderBase64 = "Jwt header is an invalid Base64url encoded",
    /// Its header isn't a JSON object.
    HeaderJson = "Jwt header is an invalid JSON",
    /// Its header names no algorithm.
    HeaderAlgorithm = "Jwt header [alg] field is required and must be a string",
    /// Its header names an algorithm that nobody here knows.
    UnknownAlgorithm = "Jwt header [alg] is not supported",
    /// Its key's name is no text.
    HeaderKey = "Jwt header [kid] field is not a string",
    /// Its payload isn't base64url.
    PayloadBase64 = "Jwt payload is an invalid Base64url encoded",
    /// Its payload isn't a JSON object.
    PayloadJson = "Jwt payload is an invalid JSON",
    /// `iss` is no text.
    Issuer = "Jwt payload [iss] field is not a string",
    /// `sub` is no text.
    Subject = "Jwt payload [sub] field is not a string",
    /// `iat` is no number.
    IssuedNumber = "Jwt payload [iat] field is not an integer",
    /// `iat` is out of range.
    IssuedRange = "Jwt payload [iat] field is not a positive 64 bit integer",
    /// `nbf` is no number.
    NotBeforeNumber = "Jwt payload [nbf] field is not an integer",
    /// `nbf` is out of range.
    NotBeforeRange = "Jwt payload [nbf] field is not a positive 64 bit integer",
    /// `exp` is no number.
    ExpiryNumber = "Jwt payload [exp] field is not an integer",
    /// `exp` is out of range.
    ExpiryRange = "Jwt payload [exp] field is not a positive 64 bit integer",
    /// `jti` is no text.
    Id = "Jwt payload [jti] field is not a string",
    /// `aud` is neither a text nor a list of texts.
    AudienceType = "Jwt payload [aud] field is not a string or string list",
    /// Its signature isn't base64url.
    SignatureBase64 = "Jwt signature is an invalid Base64url encoded",
    /// Nobody configured its issuer.
    UnknownIssuer = "Jwt issuer is not configured",
    /// It is for somebody else.
    Audience = "Audiences in Jwt are not allowed",
    /// Its signature is not by any of the keys, or a claim is not as it must be.
    Verification = "Jwt verification fails",
    /// The issuer has no usable key.
    NoKeys = "Jwks doesn't have any valid public key",
    /// None of the issuer's keys is the one it names.
    NoSuchKey = "Jwks doesn't have key to match kid or alg from Jwt",
    /// The issuer's keys could not be fetched.
    Fetch = "Jwks remote fetch is failed",
}

/// A token taken apart. Nothing of it is believed before [`Token::verify`].
#[derive(Debug)]
pub(super) struct Token<'t> {
    /// The whole of it.
    pub(super) text: &'t str,
    /// Header and payload as they were signed.
    signed: &'t str,
    /// The payload as it came.
    pub(super) payload_text: &'t str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key: Option<String>,
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    pub(super) issuer: String,
    audiences: Vec<String>,
    issued: Option<u64>,
    not_before: Option<u64>,
    expires: Option<u64>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    pub(super) fn parse(text: &'t str) -> Result<Self, Failure> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload_text), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::Format);
        };
        if header.is_empty() || payload_text.is_empty() || signature.is_empty() {
            return Err(Failure::Format);
        }
        let signed = &text[..header.len() + 1 + payload_text.len()];
        let header = object(header, Failure::HeaderBase64, Failure::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.ok_or(Failure::HeaderAlgorithm)?;
        let algorithm = algorithm.parse().map_err(|_| Failure::UnknownAlgorithm)?;
        let key = string(&header, "kid", Failure::HeaderKey)?;
        let claims = object(payload_text, Failure::PayloadBase64, Failure::PayloadJson)?;
        let issuer = string(&claims, "iss", Failure::Issuer)?.unwrap_or_default();
        string(&claims, "sub", Failure::Subject)?;
        let time = |name, number, range| seconds(&claims, name, number, range);
        let issued = time("iat", Failure::IssuedNumber, Failure::IssuedRange)?;
        let not_before = time("nbf", Failure::NotBeforeNumber, Failure::NotBeforeRange)?;
        let expires = time("exp", Failure::ExpiryNumber, Failure::ExpiryRange)?;
        string(&claims, "jti", Failure::Id)?;
        let audiences = strings(&claims, "aud", Failure::AudienceType)?;
        let signature = BASE64URL
            .decode(signature)
            .map_err(|_| Failure::SignatureBase64)?;
        Ok(Self {
            text,
            signed,
            payload_text,
            signature,
            algorithm,
            key,
            header,
            claims,
            issuer,
            audiences,
            issued,
            not_before,
            expires,
        })
    }

    /// Whether its claims are as the provider wants them: time, then audience. `audiences` replace
    /// the provider's own where there are any.
    pub(super) fn check_claims(
        &self,
        provider: &Provider,
        audiences: &[Box<str>],
        now: u64,
    ) -> Result<(), Failure> {
        let skew = provider.clock_skew.as_secs();
        if self
            .not_before
            .is_some_and(|from| now.saturating_add(skew) < from)
        {
            return Err(Failure::NotYetValid);
        }
        // An `exp` of zero counts as none, as Envoy has it.
        let expires = self.expires.filter(|expires| *expires != 0);
        if expires.is_some_and(|expires| now > expires.saturating_add(skew)) {
            return Err(Failure::Expired);
        }
        if provider.require_expiration && expires.is_none() {
            return Err(Failure::Verification);
        }
        if let Some(longest) = provider.max_lifetime {
            let start = self.issued.or(self.not_before).unwrap_or(now);
            let too_long = |end: u64| end.saturating_sub(start) > longest.as_secs();
            if expires.is_none_or(too_long) {
                return Err(Failure::Verification);
            }
        }
        let subject = self.claims.get("sub").and_then(Value::as_str);
        if let Some(test) = &provider.subject
            && !subject.is_some_and(|subject| test.matches(subject))
        {
            return Err(Failure::Verification);
        }
        let wanted = match audiences {
            [] => &provider.audiences,
            named => named,
        };
        let allowed = |one: &String| wanted.iter().any(|name| bare(name) == bare(one));
        match wanted.is_empty() || self.audiences.iter().any(allowed) {
            true => Ok(()),
            false => Err(Failure::Audience),
        }
    }

    /// Whether one of these keys signed it. A key with another name, or for another algorithm, is
    /// not tried.
    pub(super) fn verify(&self, keys: &KeySet) -> Result<(), Failure> {
        if keys.keys.is_empty() {
            return Err(Failure::NoKeys);
        }
        let named = self.key.as_deref().filter(|key| !key.is_empty());
        let fits = |id: Option<&str>| match (named, id.filter(|id| !id.is_empty())) {
            (Some(named), Some(id)) => named == id,
            _ => true,
        };
        let mut fitting = keys
            .keys
            .iter()
            .filter(|key| fits(key.id.as_deref()) && key.algorithms.contains(&self.algorithm))
            .peekable();
        if fitting.peek().is_none() {
            return Err(Failure::NoSuchKey);
        }
        let signature = BASE64URL.encode(&self.signature);
        let message = self.signed.as_bytes();
        let signed = fitting.any(|key| match (&key.key, self.algorithm) {
            (PublicKey::Usual(key), Algorithm::Usual(algorithm)) => {
                jsonwebtoken::crypto::verify(&signature, message, key, algorithm).unwrap_or(false)
            }
            (PublicKey::P521(key), Algorithm::Es512) => {
                let signature = p521::ecdsa::Signature::from_slice(&self.signature);
                signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
            (PublicKey::Usual(_), Algorithm::Es512) | (PublicKey::P521(_), Algorithm::Usual(_)) => {
                false
            }
        });
        match signed {
            true => Ok(()),
            false => Err(Failure::Verification),
        }
    }
}

/// An audience without its scheme and the slash behind it: `https://a/` and `a` are the same.
fn bare(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

fn object(text: &str, encoding: Failure, json: Failure) -> Result<Map<String, Value>, Failure> {
    let bytes = BASE64URL.decode(text).map_err(|_| encoding)?;
    serde_json::from_slice(&bytes).map_err(|_| json)
}

fn string(map: &Map<String, Value>, name: &str, wrong: Failure) -> Result<Option<String>, Failure> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong),
    }
}

fn strings(map: &Map<String, Value>, name: &str, wrong: Failure) -> Result<Vec<String>, Failure> {
    match map.get(name) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or(wrong))
            .collect(),
        Some(_) => Err(wrong),
    }
}

fn seconds(
    map: &Map<String, Value>,
    name: &str,
    no_number: Failure,
    out_of_range: Failure,
) -> Result<Option<u64>, Failure> {
    let Some(value) = map.get(name) else {
        return Ok(None);
    };
    let number = value.as_f64().ok_or(no_number)?;
    if number < 0.0 || number >= u64::MAX as f64 {
        return Err(out_of_range);
    }
    // A fraction of a second doesn't count.
    Ok(Some(value.as_u64().unwrap_or(number as u64)))
}
