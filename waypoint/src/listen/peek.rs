//! Looking at the first bytes of a connection for a bounded time. What was looked at is read again
//! by whoever takes the connection.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::detect::{self, Hello, LIMIT};
use super::io::Replay;
use crate::model::listener::Protocol;

/// How much is read at a time: most first flights fit.
const CHUNK: usize = 4 << 10;
/// How long is looked where the configuration has no bound of its own: a server that speaks first
/// must get its connection.
const LONGEST: Duration = Duration::from_secs(5);

/// What the first bytes were found to be.
#[derive(Debug, Default)]
pub struct Found {
    /// The HTTP they begin, where that was looked for.
    pub protocol: Option<Protocol>,
    /// What TLS asks for, where it was looked for and found.
    pub hello: Option<Hello>,
    /// There were any.
    pub any: bool,
}

impl<T: AsyncRead + Unpin> Replay<T> {
    /// Reads until it is known what the connection carries, it ends, or `limit` is over (zero: the
    /// longest that is ever waited). What isn't known by then is opaque. Everything is read again.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn look(
        &mut self,
        for_http: bool,
        for_tls: bool,
        limit: Duration,
    ) -> io::Result<Found> {
        let mut search = Search::new(for_http, for_tls);
        let limit = if limit.is_zero() { LONGEST } else { limit };
        let until = Instant::now() + limit;
        let mut bytes = BytesMut::from(std::mem::take(&mut self.before));
        while !search.is_over() && bytes.len() < LIMIT {
            bytes.reserve(CHUNK);
            match timeout_at(until, self.inner.read_buf(&mut bytes)).await {
                Ok(Ok(0)) | Err(_) => break,
                Ok(Ok(_)) => search.see(&bytes),
                Ok(Err(error)) => return Err(error),
            }
        }
        self.before = bytes.freeze();
        Ok(search.found(!self.before.is_empty()))
    }
}

/// What is still to be found out.
struct Search {
    http: bool,
    tls: bool,
    /// HTTP was looked for at all.
    asked_http: bool,
    protocol: Option<Protocol>,
    hello: Option<Hello>,
}

impl Search {
    fn new(http: bool, tls: bool) -> Self {
        Self {
            http,
            tls,
            asked_http: http,
            protocol: None,
            hello: None,
        }
    }

    fn is_over(&self) -> bool {
        !self.http && !self.tls
    }

    fn see(&mut self, bytes: &[u8]) {
        if self.tls
            && let Some(verdict) = detect::tls(bytes)
        {
            self.tls = false;
            self.hello = verdict;
        }
        if self.http
            && let Some(verdict) = detect::http(bytes)
        {
            self.http = false;
            self.protocol = Some(verdict);
        }
    }

    fn found(self, any: bool) -> Found {
        let unknown = self.asked_http.then_some(Protocol::Opaque);
        Found {
            protocol: self.protocol.or(unknown),
            hello: self.hello,
            any,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair() -> (DuplexStream, Replay<DuplexStream>) {
        let (client, server) = duplex(1024);
        (client, Replay::new(server))
    }

    #[tokio::test]
    async fn bytes_that_were_looked_at_are_read_again() {
        let (mut client, mut source) = pair();
        client.write_all(b"GET / HT").await.unwrap();
        let more = async {
            client
                .write_all(b"TP/1.1\r\nhost: a\r\n\r\n")
                .await
                .unwrap();
            client.shutdown().await.unwrap();
        };
        let limit = Duration::from_secs(60);
        let (found, ()) = tokio::join!(source.look(true, true, limit), more);
        let found = found.unwrap();
        assert_eq!(found.protocol, Some(Protocol::Http11));
        assert_eq!(found.hello, None);
        let mut all = String::new();
        source.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_opaque_after_the_bound() {
        let (_client, mut source) = pair();
        let found = source.look(true, false, Duration::ZERO).await.unwrap();
        assert_eq!(found.protocol, Some(Protocol::Opaque));
        assert!(!found.any);
    }

    #[tokio::test]
    async fn nothing_is_read_where_nobody_looks() {
        let (mut client, mut source) = pair();
        client.write_all(b"hello").await.unwrap();
        let found = source.look(false, false, Duration::ZERO).await.unwrap();
        assert!(!found.any && found.protocol.is_none());
    }
}
