//! A resource that is refused: which one, which field, and why. What is wrong is said where it is
//! found; the path to it is put in front on the way out. The text of it is the NACK's.

use std::fmt;

/// What is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The resource: its kind and name.
    pub resource: String,
    /// The way to the field, such as `virtual_hosts[0].routes[3].route.timeout`.
    pub field: String,
    /// What is wrong with it, and the likely cause.
    pub reason: String,
}

impl Refused {
    /// Something is wrong right here.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            resource: String::new(),
            field: String::new(),
            reason: reason.into(),
        }
    }

    /// The field in which it is wrong is inside of this one.
    #[must_use]
    pub fn under(mut self, outer: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => outer.to_owned(),
            inner if inner.starts_with('[') => format!("{outer}{inner}"),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.resource, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}

/// Saying where something went wrong.
pub trait At<T> {
    /// In this field.
    ///
    /// # Errors
    /// The same, with the field in front of its path.
    fn at(self, field: &str) -> Result<T, Refused>;
    /// In this element of a list.
    ///
    /// # Errors
    /// The same, with the index in front of its path.
    fn item(self, index: usize) -> Result<T, Refused>;
    /// In this entry of a map, or this element of a list whose elements have names.
    ///
    /// # Errors
    /// The same, with the key in front of its path.
    fn key(self, key: &str) -> Result<T, Refused>;
    /// In this resource.
    ///
    /// # Errors
    /// The same, with the resource named.
    fn of(self, kind: &str, name: &str) -> Result<T, Refused>;
}

impl<T> At<T> for Result<T, Refused> {
    fn at(self, field: &str) -> Self {
        self.map_err(|refused| refused.under(field))
    }

    fn item(self, index: usize) -> Self {
        self.map_err(|refused| refused.under(&format!("[{index}]")))
    }

    fn key(self, key: &str) -> Self {
        self.map_err(|refused| refused.under(&format!("[{key:?}]")))
    }

    fn of(self, kind: &str, name: &str) -> Self {
        self.map_err(|mut refused| {
            refused.resource = format!("{kind} {name:?}");
            refused
        })
    }
}

/// A field that must be there.
///
/// # Errors
/// It isn't.
pub fn need<T>(value: Option<T>, field: &str) -> Result<T, Refused> {
    value.ok_or_else(|| Refused::new("must be set").under(field))
}

/// Compiles every element of a list, naming the one that is wrong.
///
/// # Errors
/// The first element's that is wrong.
pub fn each<T, U>(
    field: &str,
    list: impl IntoIterator<Item = T>,
    mut compile: impl FnMut(T) -> Result<U, Refused>,
) -> Result<Vec<U>, Refused> {
    let list = list.into_iter();
    let mut compiled = Vec::with_capacity(list.size_hint().0);
    // Not collected: a list that is collected from another one keeps the other one's memory, and
    // messages are many times as large as what they compile to.
    for (index, element) in list.enumerate() {
        compiled.push(compile(element).item(index).at(field)?);
    }
    Ok(compiled)
}

/// Compiles every entry of a map, in the order of their keys, naming the one that is wrong.
///
/// # Errors
/// The first entry's that is wrong.
pub fn each_keyed<T, U>(
    field: &str,
    map: impl IntoIterator<Item = (String, T)>,
    mut compile: impl FnMut(&str, T) -> Result<U, Refused>,
) -> Result<Vec<U>, Refused> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    let mut compiled = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        compiled.push(compile(&key, value).key(&key).at(field)?);
    }
    Ok(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_fault_is_told_from_outside_to_inside() {
        let wrong: Result<(), _> = Err(Refused::new("no such thing"));
        let told = wrong
            .at("timeout")
            .key("istio")
            .at("metadata")
            .item(3)
            .at("routes")
            .of("Listener", "main_internal");
        assert_eq!(
            told.unwrap_err().to_string(),
            r#"Listener "main_internal": routes[3].metadata["istio"].timeout: no such thing"#
        );
    }
}
