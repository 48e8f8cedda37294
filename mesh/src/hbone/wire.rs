//! The encrypted bytes under HTTP/2. Remembers why TLS broke, because `h2` keeps only the text of
//! an error, and a server's refusal of our certificate first shows when we read.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::cork::{Corked, Outlet, cork};
use crate::tap::{Tap, Tapped};
use crate::tls::{Ahead, TlsRefusal};

/// Over a socket, or over what another tunnel carries.
pub(super) type Wire<T = TcpStream> = Tapped<TlsStream<Ahead<T>>, Broken>;

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
pub(super) fn corked<T>(
    tls: impl Into<TlsStream<Ahead<T>>>,
) -> (Corked<Wire<T>>, Outlet<Wire<T>>, Broken) {
    let broken = Broken::default();
    let (wire, outlet) = cork(Tapped::new(tls.into(), broken.clone()));
    (wire, outlet, broken)
}
