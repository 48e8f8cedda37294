//! TLS that ends here: the handshake within its limit, and what the peer's certificate says.

use std::rc::Rc;
use std::sync::Arc;

use mesh::identity::Identity;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tracing::debug;
use x509_parser::extensions::GeneralName;

use super::io::{Carrier, Io, Replay};
use crate::connection::{Downstream, PeerCertificate};
use crate::http::Version;
use crate::model::listener::Chain;
use crate::model::tls::ServerTls;
use crate::worker::Local;

/// Ends TLS on a connection, and notes in `down` who the peer is. Nothing where it fails.
pub(super) async fn accept(
    local: &Rc<Local>,
    carrier: Carrier,
    tls: &ServerTls,
    chain: &Chain,
    down: &mut Downstream,
) -> Option<(Io, Option<Version>)> {
    let config = match local.secrets.server_config(tls) {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(chain = %chain.name, %error, "TLS can't be spoken yet");
            return None;
        }
    };
    let handshake = TlsAcceptor::from(config).accept(carrier);
    let stream = match tokio::time::timeout(chain.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(chain = %chain.name, remote = %down.remote, %error, "TLS failed");
            local.telemetry.without_handshake(false);
            return None;
        }
        Err(_) => {
            debug!(chain = %chain.name, remote = %down.remote, "TLS took too long");
            local.telemetry.without_handshake(true);
            return None;
        }
    };
    let connection = stream.get_ref().1;
    let alpn = connection.alpn_protocol().and_then(|name| match name {
        b"h2" => Some(Version::Http2),
        b"http/1.1" | b"http/1.0" => Some(Version::Http1),
        _ => None,
    });
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let peer = leaf.and_then(read);
    if let Some(name) = connection.server_name() {
        down.server_name = Some(name.to_ascii_lowercase().into());
    }
    down.peer = peer.map(Arc::new);
    down.secure = true;
    Some((Io::Tls(Box::new(Replay::new(stream))), alpn))
}

/// What a certificate says.
fn read(leaf: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let mut peer = PeerCertificate {
        subject: parsed.subject().to_string().into(),
        hash: hexadecimal(&Sha256::digest(leaf)),
        ..PeerCertificate::default()
    };
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => peer.uris.push((*uri).into()),
            GeneralName::DNSName(name) => peer.dns.push((*name).into()),
            _ => {}
        }
    }
    let first = peer.uris.first();
    peer.identity = first.and_then(|uri| uri.parse::<Identity>().ok());
    Some(peer)
}

pub(super) fn hexadecimal(bytes: &[u8]) -> Box<str> {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}
