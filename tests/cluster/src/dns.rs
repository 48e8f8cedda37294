//! The cluster's DNS: CoreDNS as a pod, and the question whether a node gets answers from it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Result;

use crate::address;
use crate::inside::Inside;

/// CoreDNS built from the pinned module.
pub(crate) const IMAGE: &str = "culvert.local/coredns:dev";

/// How long one question waits for its answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// Header (RFC 1035 section 4.1.1: id, recursion desired, one question) and the question for the
/// address of a name that every cluster has.
const QUESTION: &[u8] =
    b"\x43\x56\x01\x00\x00\x01\0\0\0\0\0\0\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";

/// What to apply, with CoreDNS on the node of that name.
pub(crate) fn manifest(node: &str) -> String {
    include_str!("coredns.yaml")
        .replace(": IMAGE", &format!(": {IMAGE}"))
        .replace(": NODE}", &format!(": {node}}}"))
        .replace("DNS_V4", &address::DNS.to_string())
        .replace("DNS_V6", &address::DNS_V6.to_string())
}

/// Whether a question put on the node to the DNS service is answered with an address.
pub(crate) fn answers(node: &Inside) -> Result<bool> {
    node.in_network(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let server = SocketAddr::from((address::DNS, 53));
        let mut answer = [0; 512];
        // Any failure (no route to the service yet, nobody listens yet) is no answer.
        let asked = socket.connect(server).and_then(|()| socket.send(QUESTION));
        let length = asked.and_then(|_| socket.recv(&mut answer)).unwrap_or(0);
        Ok(is_answer(&answer[..length]))
    })
}

/// Our id, no error, at least one record.
fn is_answer(packet: &[u8]) -> bool {
    matches!(packet, [0x43, 0x56, _, flags, _, _, high, low, ..]
        if flags & 0x0f == 0 && (*high, *low) != (0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_manifest_is_filled_in() {
        let manifest = manifest("node1");
        let body: Vec<_> = manifest.lines().filter(|l| !l.starts_with('#')).collect();
        let body = body.join("\n");
        for placeholder in ["IMAGE", "NODE", "DNS_V"] {
            assert!(!body.contains(placeholder), "{placeholder}");
        }
        assert!(body.contains("fd00:10:96::a"), "{body}");
        assert!(body.contains("kubernetes.io/hostname: node1"));
    }

    #[test]
    fn an_error_or_an_empty_answer_is_none() {
        let mut packet = QUESTION.to_vec();
        assert!(!is_answer(&packet), "a question");
        packet[7] = 1;
        assert!(is_answer(&packet));
        packet[3] = 3; // NXDOMAIN
        assert!(!is_answer(&packet));
        assert!(!is_answer(&[]));
    }
}
