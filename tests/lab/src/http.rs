//! One plain HTTP request to a port inside a namespace: readiness, metrics and admin of a ztunnel.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::netns::Netns;

/// How long an admin port may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks. HTTP/1.0, so that the body is never chunked and ends with the connection.
///
/// # Errors
/// When nobody listens or the answer does not parse.
pub fn request(netns: &Netns, at: SocketAddr, method: &str, path: &str) -> Result<Response> {
    let mut stream = netns
        .connect(at, PATIENCE)
        .with_context(|| format!("connecting to {at}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("reading {path} from {at}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("{at}{path}: no HTTP answer"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| anyhow!("{at}{path}: no status in {head:?}"))?;
    Ok(Response {
        status,
        body: body.to_owned(),
    })
}
