//! A part that few things of their kind have, such as changes to headers of a route. Where it isn't
//! there it takes one word, and reads as a part that says nothing. There may be thousands of routes
//! and tens of thousands of endpoints, and what none of them has would be most of their memory.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// What can say nothing.
pub trait Silent: Default + 'static {
    /// It says nothing.
    const SILENT: &'static Self;

    /// Whether it says nothing.
    fn is_silent(&self) -> bool;
}

/// A part that is mostly not there.
#[derive(Debug, Clone)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Silent> From<T> for Rare<T> {
    fn from(part: T) -> Self {
        Self((!part.is_silent()).then(|| Box::new(part)))
    }
}

impl<T: Silent> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::SILENT)
    }
}

impl<T: Silent> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Silent + PartialEq> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Silent + Eq> Eq for Rare<T> {}

impl<T: Silent + Hash> Hash for Rare<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: 'static> Silent for Vec<T> {
    const SILENT: &'static Self = &Self::new();

    fn is_silent(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_takes_a_word_and_reads_as_nothing() {
        assert_eq!(size_of::<Rare<Vec<u8>>>(), size_of::<usize>());
        let mut rare = Rare::from(Vec::<u8>::new());
        assert!(rare.0.is_none() && rare.is_empty());
        rare.push(1);
        assert_eq!(*rare, [1]);
        rare.clear();
        assert_eq!(rare, Rare::default());
    }
}
