//! What the first bytes of a connection are: an HTTP/1 request line, the HTTP/2 preface, a TLS
//! ClientHello, or something else. Pure: bytes in, a verdict out. Envoy's http_inspector and
//! tls_inspector.

use rustls::server::Acceptor;

use crate::model::listener::Protocol;

/// The bytes that every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method that is looked for.
const LONGEST_METHOD: usize = 32;
/// No more bytes are looked at than this; what is longer is opaque. As Envoy's inspectors.
pub(super) const LIMIT: usize = 64 << 10;

/// What a TLS ClientHello asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The server's name, in lower case.
    pub server_name: Option<Box<str>>,
    /// The protocols offered.
    pub alpn: Vec<Box<str>>,
}

/// A verdict, or nothing while more bytes are needed.
pub(super) type Verdict<T> = Option<T>;

/// Which HTTP the bytes begin.
pub(super) fn http(bytes: &[u8]) -> Verdict<Protocol> {
    let seen = bytes.len().min(PREFACE.len());
    if bytes[..seen] == PREFACE[..seen] {
        return (seen == PREFACE.len()).then_some(Protocol::Http2);
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let possible = bytes.len() < LIMIT && may_be_request_line(bytes);
        return (!possible).then_some(Protocol::Opaque);
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    Some(match version {
        _ if !may_be_request_line(line) => Protocol::Opaque,
        b"HTTP/1.1" => Protocol::Http11,
        b"HTTP/1.0" => Protocol::Http10,
        _ => Protocol::Opaque,
    })
}

/// A method, one space, and a target without control bytes.
fn may_be_request_line(bytes: &[u8]) -> bool {
    let method = bytes.iter().position(|byte| *byte == b' ');
    let end = method.unwrap_or(bytes.len());
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (method.is_none() || end > 0)
        && end <= LONGEST_METHOD
        && bytes[..end].iter().all(is_token)
        && bytes[end..]
            .iter()
            .all(|byte| !byte.is_ascii_control() || *byte == b'\r')
}

/// Whether the bytes begin TLS, and what its ClientHello asks for.
pub(super) fn tls(mut bytes: &[u8]) -> Verdict<Option<Hello>> {
    // A handshake record of some version 3.
    let header = [0x16, 0x03];
    let seen = bytes.len().min(header.len());
    if bytes[..seen] != header[..seen] || bytes.len() >= LIMIT {
        return Some(None);
    }
    if seen < header.len() {
        return None;
    }
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Some(None);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().into_iter().flatten();
                return Some(Some(Hello {
                    server_name: hello
                        .server_name()
                        .map(|name| name.to_ascii_lowercase().into_boxed_str()),
                    alpn: alpn
                        .filter_map(|protocol| std::str::from_utf8(protocol).ok())
                        .map(Box::from)
                        .collect(),
                }));
            }
            Ok(None) => {}
            Err(_) => return Some(None),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    #[test]
    fn request_lines_and_the_preface_are_known_as_soon_as_possible() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"G", None),
            (b"GET / HTTP/1.1", None),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http11)),
            (b"GET / HTTP/1.1\nHost: a\r\n", Some(Protocol::Http11)),
            (b"OPTIONS * HTTP/1.0\r\n", Some(Protocol::Http10)),
            (
                b"M-SEARCH /a%20b?c=d HTTP/1.1\r\nrest",
                Some(Protocol::Http11),
            ),
            (b"GET / HTTP/0.9\r\n", Some(Protocol::Opaque)),
            (b"GET /\r\n", Some(Protocol::Opaque)),
            (b" GET / HTTP/1.1\r\n", Some(Protocol::Opaque)),
            (b"\x16\x03\x01\x02\x00", Some(Protocol::Opaque)),
            (b"\x00", Some(Protocol::Opaque)),
            (b"PR", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Protocol::Http2)),
            (b"PRINT / HTTP/1.1\r\n", Some(Protocol::Http11)),
            (b"*3\r\n$3\r\nSET\r\n", Some(Protocol::Opaque)),
            (
                b"averyveryveryverylongwordthatisnomethodatall",
                Some(Protocol::Opaque),
            ),
        ] {
            assert_eq!(
                http(bytes),
                expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        let endless = [b"GET /".to_vec(), vec![b'a'; LIMIT]].concat();
        assert_eq!(http(&endless), Some(Protocol::Opaque));
        assert_eq!(http(&endless[..LIMIT - 1]), None);
    }

    #[test]
    fn a_client_hello_tells_its_name_and_protocols_once_it_is_whole() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("Reviews.Example").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        for end in 0..bytes.len() {
            assert_eq!(tls(&bytes[..end]), None, "{end} of {}", bytes.len());
        }
        let hello = tls(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("reviews.example"));
        assert_eq!(hello.alpn, ["h2".into(), "http/1.1".into()]);
        assert_eq!(tls(b"GET / HTTP/1.1\r\n"), Some(None));
        assert_eq!(tls(b"\x16\x02\x00"), Some(None));
        assert_eq!(tls(b"\x16\x03\x01\x00\x02\xff\xff\xff"), Some(None));
    }
}
