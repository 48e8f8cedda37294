//! Bytes from a client, into a running waypoint with a backend behind it. The waypoint ends every
//! connection in a bounded time and says nothing that is no HTTP; and whatever it passes on is a
//! request whose beginning and end nobody can doubt.

mod backend;
mod proxy;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use backend::Backend;
use proxy::Proxy;

/// How long a connection may last once its client has said everything: less would find a slow
/// machine.
const END: Duration = Duration::from_secs(20);
/// What an HTTP/2 client says first, with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Bit of the first byte: the input goes on an HTTP/2 connection.
pub const HTTP2: u8 = 1;
/// Bit of the first byte: it goes to the listener that expects the PROXY protocol.
pub const PROXY_PROTOCOL: u8 = 2;

struct Running {
    backend: Backend,
    proxy: Proxy,
}

/// One for all inputs: threads and sockets outlive an input, as they do in the product.
fn running() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(|| {
        let backend = Backend::start();
        let proxy = Proxy::start(backend.address);
        Running { backend, proxy }
    })
}

/// The first byte chooses the way in, the others are what the client says.
pub fn check(bytes: &[u8]) {
    let Some((how, said)) = bytes.split_first() else {
        return;
    };
    let running = running();
    let (to, http2) = (how & PROXY_PROTOCOL, how & HTTP2 != 0);
    let to = match to {
        0 => running.proxy.plain,
        _ => running.proxy.proxy_protocol,
    };
    let heard = talk(to, if http2 { PREFACE } else { &[] }, said);
    if !http2 && to == running.proxy.plain {
        answer(&heard);
    }
    if let Some(doubt) = running.backend.doubt() {
        panic!("the backend got what is open to doubt: {doubt}");
    }
}

/// Says it all, ends, and hears the other side out.
fn talk(to: SocketAddr, first: &[u8], then: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut client = TcpStream::connect(to).expect("the waypoint listens");
    client.set_read_timeout(Some(END)).expect("a time-out");
    client.set_write_timeout(Some(END)).expect("a time-out");
    // It may have heard enough before all is said.
    let _ = client
        .write_all(first)
        .and_then(|()| client.write_all(then));
    let _ = client.shutdown(Shutdown::Write);
    let end = client.read_to_end(&mut heard);
    if let Err(error) = end {
        let still_open = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(
            !still_open,
            "open {END:?} after its client's end, said {heard:?}"
        );
    }
    heard
}

/// An answer in HTTP/1, whole or broken off; HTTP/2's own frames where the client said its preface.
fn answer(heard: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let frames = heard.get(3).is_some_and(|kind| *kind == 4) && heard[0] == 0;
    if heard.is_empty() || frames {
        return;
    }
    if let Err(error) = response.parse(heard) {
        panic!("{error}: {:?}", String::from_utf8_lossy(heard));
    }
    if let Some(code) = response.code {
        assert!((100..600).contains(&code), "status {code}");
    }
}
