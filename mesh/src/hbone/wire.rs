//! The encrypted bytes under HTTP/2. Remembers why TLS broke, because `h2` keeps only the text of
//! an error, and a server's refusal of our certificate first shows when we read.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::cork::{Corked, Outlet, cork};
use crate::tap::{Tap, Tapped};
use crate::tls::{Ahead, TlsRefusal};

pub(super) type Wire = Tapped<TlsStream<Ahead<TcpStream>>, Broken>;

/// Why TLS broke, once it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<OnceLock<TlsRefusal>>);

impl Broken {
    /// The reason, if it broke.
    pub(super) fn get(&self) -> Option<&TlsRefusal> {
        self.0.get()
    }
}

impl Tap for Broken {
    fn failed(&self, error: &io::Error) {
        let _ = self.0.set(TlsRefusal::of(error));
    }
}

/// The wire behind a cork, what lets its writes out, and why it broke.
pub(super) fn corked(
    tls: impl Into<TlsStream<Ahead<TcpStream>>>,
) -> (Corked<Wire>, Outlet<Wire>, Broken) {
    let broken = Broken::default();
    let (wire, outlet) = cork(Tapped::new(tls.into(), broken.clone()));
    (wire, outlet, broken)
}
