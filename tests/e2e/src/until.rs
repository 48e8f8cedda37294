//! Waiting for a condition, never for a time: every wait of a story names what it waits for and has
//! an end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(200);

/// Asks `look` until it gives something. An answer of `Err` is what the condition lacks so far; the
/// last one becomes the error when `limit` is over.
///
/// # Errors
/// When `limit` is over.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(lacking) if Instant::now() >= end => {
                bail!("not after {} s: {what}: {lacking:#}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            if looks < 3 {
                bail!("only {looks}")
            } else {
                Ok(looks)
            }
        });
        assert_eq!(found.unwrap(), 3);
        let never = until("a miracle", Duration::ZERO, || -> Result<()> {
            bail!("no sign")
        });
        assert!(
            never
                .unwrap_err()
                .to_string()
                .contains("a miracle: no sign")
        );
    }
}
