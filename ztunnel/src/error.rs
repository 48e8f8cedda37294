//! Errors as one line: logs, acknowledgements and Kubernetes events have no room for a chain.

use std::error::Error;

/// An error followed by what caused it, each once.
#[must_use]
pub(crate) fn line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Door(#[source] std::io::Error);

    #[test]
    fn causes_follow_and_are_not_repeated() {
        let error = Door(std::io::Error::other("it is locked"));
        assert_eq!(line(&error), "cannot open the door: it is locked");
        assert_eq!(line(&std::io::Error::other("alone")), "alone");
    }
}
