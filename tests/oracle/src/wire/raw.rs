//! A caller that sends exactly the bytes it is given, and reads answers with as little judgement as
//! their framing allows: what a hostile or an old client does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// One answer as it stood on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// `HTTP/1.1`.
    pub version: String,
    /// Names as they were written.
    pub headers: Vec<(String, String)>,
    /// The body, its framing removed.
    pub body: Vec<u8>,
    /// Of a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// A connection for exact bytes.
#[derive(Debug)]
pub struct Raw {
    /// Our own end.
    pub local: SocketAddr,
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            local: stream.local_addr()?,
            stream,
            read: Vec::new(),
        })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("sending")
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn finish(&mut self) -> Result<()> {
        self.stream.shutdown().await.context("finishing")
    }

    /// The next answer, 1xx included; `None` when the other side closed instead.
    ///
    /// # Errors
    /// After `patience`, or when what came is no HTTP/1 answer.
    pub async fn answer(&mut self, patience: Duration, to_head: bool) -> Result<Option<RawAnswer>> {
        let until = Instant::now() + patience;
        let head = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect::<Vec<u8>>();
                break String::from_utf8_lossy(&head).into_owned();
            }
            if !self.more(until).await? {
                if self.read.is_empty() {
                    return Ok(None);
                }
                bail!("closed in the middle of an answer's head");
            }
        };
        let mut answer = parse(&head)?;
        let bodiless = to_head || answer.status / 100 == 1 || matches!(answer.status, 204 | 304);
        if bodiless {
            return Ok(Some(answer));
        }
        match answer.header("transfer-encoding") {
            Some("chunked") => self.chunks(&mut answer, until).await?,
            Some(other) => bail!("transfer-encoding {other}"),
            None => match answer.header("content-length").map(str::parse::<usize>) {
                Some(length) => answer.body = self.exactly(length?, until).await?,
                None => answer.body = self.rest(until).await?,
            },
        }
        Ok(Some(answer))
    }

    /// Everything until the other side closes.
    ///
    /// # Errors
    /// When it has not closed within `patience`.
    pub async fn until_closed(&mut self, patience: Duration) -> Result<Vec<u8>> {
        self.rest(Instant::now() + patience).await
    }

    /// Exactly so many bytes.
    ///
    /// # Errors
    /// When they don't come within `patience`.
    pub async fn take(&mut self, count: usize, patience: Duration) -> Result<Vec<u8>> {
        self.exactly(count, Instant::now() + patience).await
    }

    async fn chunks(&mut self, answer: &mut RawAnswer, until: Instant) -> Result<()> {
        loop {
            let line = self.line(until).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("a chunk's size")?;
            if size == 0 {
                break;
            }
            answer.body.extend(self.exactly(size, until).await?);
            self.line(until).await?;
        }
        loop {
            let line = self.line(until).await?;
            match line.split_once(':') {
                Some((name, value)) => answer.trailers.push((name.into(), value.trim().into())),
                None => return Ok(()),
            }
        }
    }

    async fn line(&mut self, until: Instant) -> Result<String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line = self.read.drain(..end + 2).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more(until).await? {
                bail!("closed in the middle of a chunked body");
            }
        }
    }

    async fn exactly(&mut self, count: usize, until: Instant) -> Result<Vec<u8>> {
        while self.read.len() < count {
            if !self.more(until).await? {
                bail!("closed after {} of {count} bytes", self.read.len());
            }
        }
        Ok(self.read.drain(..count).collect())
    }

    async fn rest(&mut self, until: Instant) -> Result<Vec<u8>> {
        while self.more(until).await? {}
        Ok(std::mem::take(&mut self.read))
    }

    /// Reads on; false at the end, for which a reset counts too.
    async fn more(&mut self, until: Instant) -> Result<bool> {
        match timeout_at(until, self.stream.read_buf(&mut self.read)).await {
            Ok(Ok(0) | Err(_)) => Ok(false),
            Ok(Ok(_)) => Ok(true),
            Err(_) => bail!(
                "waited in vain after {:?}",
                String::from_utf8_lossy(&self.read)
            ),
        }
    }
}

impl RawAnswer {
    /// The first header of that name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

fn parse(head: &str) -> Result<RawAnswer> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(3, ' ');
    let (version, status) = (words.next().unwrap_or_default(), words.next());
    let status = status.and_then(|s| s.parse().ok());
    let Some(status) = status.filter(|_| version.starts_with("HTTP/1.")) else {
        bail!("no HTTP/1 answer: {head:?}");
    };
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(RawAnswer {
        status,
        version: version.to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
        ..RawAnswer::default()
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn answers_are_read_one_by_one_whatever_their_framing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = b"HTTP/1.1 100 Continue\r\n\r\n\
                HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
                HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nt: 1\r\n\r\n\
                HTTP/1.0 503 no\r\n\r\nrest";
            stream.write_all(bytes).await.unwrap();
        });
        let mut raw = Raw::connect(at).await.unwrap();
        let patience = Duration::from_secs(5);
        let mut seen = Vec::new();
        while let Some(answer) = raw.answer(patience, false).await.unwrap() {
            let body = String::from_utf8(answer.body).unwrap();
            seen.push((answer.status, body, answer.trailers.len()));
        }
        let expected = [
            (100, "", 0),
            (200, "ab", 0),
            (200, "abc", 1),
            (503, "rest", 0),
        ];
        assert_eq!(seen, expected.map(|(s, b, t)| (s, b.to_owned(), t)));
    }
}
