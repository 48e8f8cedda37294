//! Signatures that were found good. A client shows the same token with every request, and verifying
//! it is by far the dearest part of a request; a token that was verified with the very same keys
//! needs it only once. Everything else about a token (times, audience, issuer) is looked at anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use crate::model::jwt::{KeySet, Provider};

/// Places, a power of two; a token that needs another's place takes it.
const PLACES: usize = 256;

/// The longest token that is kept, in bytes: all together stay under a megabyte.
const LONGEST: usize = 3 << 10;

/// The tokens that one worker found good.
#[derive(Debug)]
pub struct Seen {
    places: Vec<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    text: Box<str>,
    keys: Keys,
}

/// The keys that verified a token, known by their address, which no other can have as long as
/// something weak points there.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    /// Those of a provider's configuration.
    Inline(Weak<Provider>),
    /// Those that were fetched.
    Fetched(Weak<KeySet>),
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            places: std::iter::repeat_with(|| None).take(PLACES).collect(),
        }
    }
}

impl Seen {
    /// Whether this very token was found good by these keys.
    pub(super) fn has(&self, text: &str, keys: &Keys) -> bool {
        let known = self.places[place(text)].as_ref();
        known.is_some_and(|known| *known.text == *text && known.keys.same(keys))
    }

    /// Remembers a token that was found good.
    pub(super) fn keep(&mut self, text: &str, keys: Keys) {
        if text.len() <= LONGEST {
            self.places[place(text)] = Some(Token {
                text: text.into(),
                keys,
            });
        }
    }
}

impl Keys {
    /// The keys of a provider's configuration.
    pub(super) fn inline(provider: &Arc<Provider>) -> Self {
        Self::Inline(Arc::downgrade(provider))
    }

    /// Keys that were fetched.
    pub(super) fn fetched(keys: &Arc<KeySet>) -> Self {
        Self::Fetched(Arc::downgrade(keys))
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inline(one), Self::Inline(other)) => Weak::ptr_eq(one, other),
            (Self::Fetched(one), Self::Fetched(other)) => Weak::ptr_eq(one, other),
            _ => false,
        }
    }
}

fn place(text: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    // Only the lowest bits count.
    (hasher.finish() as usize) & (PLACES - 1)
}
