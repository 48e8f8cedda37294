//! Ending a TCP connection so that its peer notices at once.

use socket2::SockRef;
use tokio::net::TcpStream;

/// Resets a connection: the peer sees an error, never the end of a reply that it could take for a
/// whole one.
pub(crate) fn reset(stream: TcpStream) {
    // Without lingering, close(2) sends RST. Where that fails the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    drop(stream);
}
