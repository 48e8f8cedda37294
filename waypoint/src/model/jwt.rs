//! RequestAuthentication as compiled: whose tokens are accepted, from where, and what of them is
//! passed on. Envoy's `jwt_authn` filter.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::route::RouteMatch;

/// The filter.
#[derive(Debug, Clone)]
pub struct JwtAuthn {
    /// Who issues tokens, in order.
    pub providers: Vec<Arc<Provider>>,
    /// The first that matches decides what is required; none of them: nothing is.
    pub rules: Vec<JwtRule>,
    /// Requirements by name, for routes that name one.
    pub named: Vec<(Box<str>, Requirement)>,
    /// CORS preflight requests need no token.
    pub bypass_cors_preflight: bool,
}

/// What requests of one kind need.
#[derive(Debug, Clone)]
pub struct JwtRule {
    /// Which requests.
    pub matches: RouteMatch,
    /// What they need.
    pub requires: Requirement,
}

/// What a request needs.
#[derive(Debug, Clone)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// A valid token of this provider (by index), for one of these audiences where any is named.
    Provider(usize, Vec<Box<str>>),
    /// One of these.
    Any(Vec<Requirement>),
    /// Every one of these.
    All(Vec<Requirement>),
    /// No token at all passes, a token that is there must be valid.
    AllowMissing,
    /// Anything passes; valid tokens are written down.
    AllowMissingOrFailed,
}

/// Who issues tokens.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// `iss` must be this, where it isn't empty.
    pub issuer: Box<str>,
    /// `aud` must have one of these, where any is named.
    pub audiences: Vec<Box<str>>,
    /// `sub` must pass, where given.
    pub subject: Option<super::text::TextMatch>,
    /// A token without `exp` is refused.
    pub require_expiration: bool,
    /// The longest lifetime that is accepted.
    pub max_lifetime: Option<Duration>,
    /// How far clocks may differ.
    pub clock_skew: Duration,
    /// Its keys.
    pub keys: KeySource,
    /// Where a token is looked for, in order; `Authorization: Bearer` and `access_token` where
    /// none is named.
    pub from: Vec<TokenPlace>,
    /// The token is passed on to the upstream.
    pub forward: bool,
    /// The payload is passed on in this header, base64url.
    pub payload_header: Option<HeaderName>,
    /// Whether that is padded.
    pub pad_payload_header: bool,
    /// Claims passed on in headers: the header, the claim's path with dots.
    pub claim_headers: Vec<(HeaderName, Box<str>)>,
    /// The key under which later filters find the payload.
    pub payload_key: Option<Box<str>>,
    /// The key under which later filters find the token's header.
    pub header_key: Option<Box<str>>,
    /// Claims whose text is a list separated by spaces.
    pub space_delimited: Vec<Box<str>>,
    /// The route is chosen again once the claims are known.
    pub clear_route_cache: bool,
}

/// Where keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// They stand in the configuration.
    Inline(KeySet),
    /// They are fetched.
    Remote {
        /// From here.
        uri: Box<str>,
        /// Through this cluster.
        cluster: Arc<str>,
        /// How long a fetch may take.
        timeout: Duration,
        /// How long they are used.
        cache: Duration,
    },
}

/// Keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    /// Each with its id and algorithm, where it says so.
    pub keys: Vec<Key>,
}

/// One public key.
pub struct Key {
    /// `kid`
    pub id: Option<Box<str>>,
    /// The algorithms it may verify.
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub key: PublicKey,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// As the library for tokens does it.
    Usual(jsonwebtoken::Algorithm),
    /// By ECDSA on P-521 with SHA-512, which that library doesn't.
    Es512,
}

impl std::str::FromStr for Algorithm {
    type Err = jsonwebtoken::errors::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "ES512" => Ok(Self::Es512),
            name => name.parse().map(Self::Usual),
        }
    }
}

/// What verifies signatures.
pub enum PublicKey {
    /// For the usual algorithms.
    Usual(jsonwebtoken::DecodingKey),
    /// For [`Algorithm::Es512`].
    P521(Box<p521::ecdsa::VerifyingKey>),
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// In a header, after this text.
    Header(HeaderName, Box<str>),
    /// In a query parameter.
    Query(Box<str>),
    /// In a cookie.
    Cookie(Box<str>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key {{ id: {:?}, {:?} }}", self.id, self.algorithms)
    }
}
