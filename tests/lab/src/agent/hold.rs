//! Connections that a test keeps open while the world around them changes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::call::{verdict_of, within};
use super::orders::{Answer, End, Verdict};

/// How long a held connection may take to open or to echo.
const PATIENCE_MS: u64 = 10_000;

/// The held connections by number.
#[derive(Debug, Default)]
pub struct Held {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<TcpStream>>>>,
}

impl Held {
    /// Opens a connection and proves that it stands: the server has echoed a line.
    pub async fn open(&self, to: SocketAddr, tag: &str) -> Answer {
        let mut opened = None;
        let verdict = within(PATIENCE_MS, async {
            let mut stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            stream.write_all(format!("ECHO {tag}\n").as_bytes()).await?;
            let echoed = echo(&mut stream, "open").await?;
            opened = Some(stream);
            Ok(echoed)
        })
        .await;
        match (verdict, opened) {
            (Verdict::Answered(text), Some(stream)) if text == "open" => self.keep(stream),
            (verdict, _) => Answer::Verdict(verdict),
        }
    }

    /// Opens a connection on which the server sends and nobody reads; the first byte has come.
    pub async fn open_without_reading(&self, to: SocketAddr, bytes: u64) -> Answer {
        let mut opened = None;
        let verdict = within(PATIENCE_MS, async {
            let mut stream = TcpStream::connect(to).await?;
            stream
                .write_all(format!("SOURCE {bytes}\n").as_bytes())
                .await?;
            stream.peek(&mut [0]).await?;
            opened = Some(stream);
            Ok(String::new())
        })
        .await;
        match opened {
            Some(stream) => self.keep(stream),
            None => Answer::Verdict(verdict),
        }
    }

    fn keep(&self, stream: TcpStream) -> Answer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.streams
            .lock()
            .insert(number, Arc::new(tokio::sync::Mutex::new(stream)));
        Answer::Opened(number)
    }

    /// Sends a text and reads it back.
    pub async fn say(&self, number: u64, text: &str) -> Answer {
        let Some(stream) = self.find(number) else {
            return unknown(number);
        };
        let mut stream = stream.lock().await;
        Answer::Verdict(within(PATIENCE_MS, echo(&mut stream, text)).await)
    }

    /// Reads until the connection ends.
    pub async fn watch(&self, number: u64, millis: u64) -> Answer {
        let Some(stream) = self.find(number) else {
            return unknown(number);
        };
        let mut stream = stream.lock().await;
        let mut rest = String::new();
        let ended = tokio::time::timeout(
            Duration::from_millis(millis),
            stream.read_to_string(&mut rest),
        )
        .await;
        match ended {
            Err(_) => Answer::Over(End::Open),
            Ok(Ok(_)) => Answer::Over(End::Finished),
            Ok(Err(error)) if verdict_of(&error) == Verdict::Reset => Answer::Over(End::Reset),
            Ok(Err(error)) => Answer::Failed(error.to_string()),
        }
    }

    /// Closes: with FIN the server's FIN is awaited, a reset is sent at once.
    pub async fn close(&self, number: u64, reset: bool) -> Answer {
        let Some(stream) = self.streams.lock().remove(&number) else {
            return unknown(number);
        };
        let mut stream = stream.lock().await;
        let closed = if reset {
            SockRef::from(&*stream)
                .set_linger(Some(Duration::ZERO))
                .map(|()| End::Reset)
        } else {
            finish(&mut stream).await
        };
        closed.map_or_else(|error| Answer::Failed(error.to_string()), Answer::Over)
    }

    fn find(&self, number: u64) -> Option<Arc<tokio::sync::Mutex<TcpStream>>> {
        self.streams.lock().get(&number).cloned()
    }
}

fn unknown(number: u64) -> Answer {
    Answer::Failed(format!("connection {number} is not held"))
}

async fn echo(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}

async fn finish(stream: &mut TcpStream) -> io::Result<End> {
    stream.shutdown().await?;
    let mut rest = Vec::new();
    let all = stream.read_to_end(&mut rest);
    match tokio::time::timeout(Duration::from_millis(PATIENCE_MS), all).await {
        Ok(read) => read.map(|_| End::Finished),
        Err(_) => Ok(End::Open),
    }
}
