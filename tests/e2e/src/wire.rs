//! What passes between the nodes, seen by tcpdump on a node's own interface and taken apart here:
//! which ports the pods talk on, whether it is TLS, and whether a marker can be read in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bookstore::{self, Pod};
use crate::stage::Stage;
use crate::until::until;

/// The port of HBONE.
pub const HBONE: u16 = 15008;

/// Bytes of the head of a capture file, and of the head of each packet in it (pcap, version 2.4).
const FILE_HEAD: usize = 24;
const PACKET_HEAD: usize = 16;
/// The first bytes of a capture file written by this machine: microseconds or nanoseconds.
const MAGIC: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];

/// A capture that runs.
pub struct Capture {
    child: Child,
    packets: Option<JoinHandle<Vec<u8>>>,
    pods: BTreeSet<IpAddr>,
    place: String,
}

/// Bytes on one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that carried bytes.
    pub packets: u64,
    /// The bytes they carried.
    pub bytes: u64,
}

/// What a capture saw between pods of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// By the port of the one who was called.
    pub ports: BTreeMap<u16, Traffic>,
    /// How many packets the marker could be read in.
    pub marked: u64,
    /// Connections to the HBONE port whose first bytes were no TLS handshake.
    pub not_tls: u64,
    /// Connections to the HBONE port whose first bytes were a TLS handshake.
    pub tls: u64,
    /// Every packet that was seen, also those of others: a capture that saw nothing shows nothing.
    pub all: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (port, traffic) in &self.ports {
            let comma = if first { "" } else { ", " };
            write!(
                f,
                "{comma}{} packets with {} bytes on port {port}",
                traffic.packets, traffic.bytes
            )?;
            first = false;
        }
        if first {
            f.write_str("no packet between the pods")?;
        }
        write!(f, "; the marker was readable in {}", self.marked)
    }
}

impl Capture {
    /// Begins to capture on the interface of the node that the product page runs on. `None` on a
    /// cluster that is not ours: its nodes are not at hand.
    ///
    /// # Errors
    /// When tcpdump can't be started.
    pub fn start(stage: &Stage) -> Result<Option<Self>> {
        let Some(cluster) = stage.made() else {
            return Ok(None);
        };
        let pods = bookstore::pods(stage)?;
        let at = pods
            .iter()
            .find(|pod| pod.app == "productpage")
            .context("there is no product page to capture beside")?;
        let node = cluster
            .nodes()
            .iter()
            .find(|node| node.name == at.node)
            .with_context(|| format!("no node is called {}", at.node))?;
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", node.netns.display()))
            .args([
                "tcpdump",
                "-i",
                "eth0",
                "-s",
                "0",
                "-B",
                "8192",
                "--immediate-mode",
                "-U",
                "-w",
                "-",
                "tcp",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("tcpdump could not be started: is the package tcpdump installed?")?;
        let mut said = BufReader::new(child.stderr.take().context("tcpdump has no stderr")?);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(
                said.read_line(&mut line)? > 0,
                "tcpdump ended at once on {}",
                node.name
            );
        }
        // Read on, so that its closing words find somebody.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let mut stdout = child.stdout.take().context("tcpdump has no stdout")?;
        let packets = thread::spawn(move || {
            let mut all = Vec::new();
            // What was read before an error is still a capture.
            let _ = stdout.read_to_end(&mut all);
            all
        });
        let pods = addresses(&pods);
        Ok(Some(Self {
            child,
            packets: Some(packets),
            pods,
            place: format!("eth0 of {}", node.name),
        }))
    }

    /// Where it listens: the interface and its node.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Ends the capture and takes it apart, looking for `marker`.
    ///
    /// # Errors
    /// When tcpdump does not end or wrote something unreadable.
    pub fn stop(mut self, marker: &str) -> Result<Seen> {
        let tcpdump = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(tcpdump, Signal::SIGINT).context("ending tcpdump")?;
        until("tcpdump to end", Duration::from_secs(10), || {
            self.child.try_wait()?.context("it still runs")
        })?;
        let reader = self
            .packets
            .take()
            .context("the capture was read already")?;
        let file = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the capture's reader panicked"))?;
        take_apart(&file, &self.pods, marker.as_bytes())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Ended already, if it fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addresses(pods: &[Pod]) -> BTreeSet<IpAddr> {
    pods.iter()
        .flat_map(|pod| pod.ips.iter().copied())
        .collect()
}

/// A way of a connection: from whom to whom.
type Way = (SocketAddr, SocketAddr);

fn take_apart(file: &[u8], pods: &BTreeSet<IpAddr>, marker: &[u8]) -> Result<Seen> {
    let head = file.get(..FILE_HEAD).context("the capture is empty")?;
    if !MAGIC.contains(&number(head, 0)) {
        bail!("the capture is no pcap file of this machine");
    }
    let mut seen = Seen::default();
    // Ways on which a SYN went by and no byte yet, by the first sequence number expected.
    let mut fresh: HashMap<Way, u32> = HashMap::new();
    let mut callers: BTreeSet<Way> = BTreeSet::new();
    let mut rest = &file[FILE_HEAD..];
    while let Some(head) = rest.get(..PACKET_HEAD) {
        let length = number(head, 8) as usize;
        let Some(frame) = rest.get(PACKET_HEAD..PACKET_HEAD + length) else {
            break;
        };
        rest = &rest[PACKET_HEAD + length..];
        seen.all += 1;
        let Some((from, to, tcp)) = segment(frame) else {
            continue;
        };
        if !pods.contains(&from.ip()) || !pods.contains(&to.ip()) {
            continue;
        }
        if tcp.syn() && !tcp.ack() {
            callers.insert((from, to));
            fresh.insert((from, to), tcp.sequence_number().wrapping_add(1));
        }
        let payload = tcp.payload();
        if payload.is_empty() {
            continue;
        }
        // Without its SYN the caller of a connection is told by the lower port, as servers have.
        let called = if callers.contains(&(from, to)) {
            to.port()
        } else if callers.contains(&(to, from)) {
            from.port()
        } else {
            from.port().min(to.port())
        };
        let traffic = seen.ports.entry(called).or_default();
        traffic.packets += 1;
        traffic.bytes += payload.len() as u64;
        if payload.windows(marker.len()).any(|bytes| bytes == marker) {
            seen.marked += 1;
        }
        if to.port() == HBONE && fresh.get(&(from, to)) == Some(&tcp.sequence_number()) {
            fresh.remove(&(from, to));
            // A handshake record of TLS: type 22, version 3.x.
            if payload.starts_with(&[22, 3]) {
                seen.tls += 1
            } else {
                seen.not_tls += 1
            }
        }
    }
    Ok(seen)
}

fn segment(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, etherparse::TcpSlice<'_>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (from, to) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            IpAddr::V4(ip.header().source_addr()),
            IpAddr::V4(ip.header().destination_addr()),
        ),
        NetSlice::Ipv6(ip) => (
            IpAddr::V6(ip.header().source_addr()),
            IpAddr::V6(ip.header().destination_addr()),
        ),
        NetSlice::Arp(_) => return None,
    };
    match packet.transport? {
        TransportSlice::Tcp(tcp) => Some((
            SocketAddr::new(from, tcp.source_port()),
            SocketAddr::new(to, tcp.destination_port()),
            tcp,
        )),
        _ => None,
    }
}

/// The number of four bytes at `at`, in this machine's order, as pcap files have it.
fn number(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(four)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const LEFT: [u8; 4] = [10, 0, 0, 1];
    const RIGHT: [u8; 4] = [10, 0, 0, 2];

    struct File(Vec<u8>);

    impl File {
        fn new() -> Self {
            let mut file = MAGIC[0].to_ne_bytes().to_vec();
            file.resize(FILE_HEAD, 0);
            Self(file)
        }

        fn tcp(mut self, from: u16, to: u16, sequence: u32, syn: bool, payload: &[u8]) -> Self {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4(LEFT, RIGHT, 64)
                .tcp(from, to, sequence, 65535);
            let builder = if syn { builder.syn() } else { builder.ack(1) };
            let mut frame = Vec::new();
            builder.write(&mut frame, payload).unwrap();
            let length = u32::try_from(frame.len()).unwrap().to_ne_bytes();
            self.0.extend([0; 8]);
            self.0.extend(length);
            self.0.extend(length);
            self.0.extend(frame);
            self
        }

        fn seen(&self) -> Seen {
            let pods = [LEFT.into(), RIGHT.into()].into();
            take_apart(&self.0, &pods, b"marker").unwrap()
        }
    }

    #[test]
    fn a_marker_in_plain_text_is_found() {
        let seen = File::new()
            .tcp(40000, 9080, 6, true, b"")
            .tcp(40000, 9080, 7, false, b"GET / x-request-id: marker")
            .seen();
        assert_eq!(seen.marked, 1);
        assert_eq!(
            seen.ports[&9080],
            Traffic {
                packets: 1,
                bytes: 26
            }
        );
    }

    #[test]
    fn tls_on_the_hbone_port_is_told_from_anything_else() {
        let seen = File::new()
            .tcp(40000, HBONE, 6, true, b"")
            .tcp(40000, HBONE, 7, false, &[22, 3, 1, 0, 5])
            .tcp(40001, HBONE, 6, true, b"")
            .tcp(40001, HBONE, 7, false, b"PRI * HTTP/2.0")
            .seen();
        assert_eq!((seen.tls, seen.not_tls), (1, 1));
        assert_eq!(seen.ports.keys().collect::<Vec<_>>(), [&HBONE]);
    }

    #[test]
    fn others_are_counted_and_not_looked_into() {
        let file = File::new().tcp(40000, 9080, 7, false, b"marker");
        let seen = take_apart(&file.0, &[IpAddr::from(LEFT)].into(), b"marker").unwrap();
        assert_eq!((seen.all, seen.marked, seen.ports.len()), (1, 0, 0));
        assert!(take_apart(b"", &BTreeSet::new(), b"m").is_err());
    }
}
