//! Captures what crosses the network between nodes: an AF_PACKET socket in the fabric sees every
//! frame on every port of the bridge. A claim that something was not seen is only made when the
//! kernel dropped no frame.
#![allow(unsafe_code)] // PACKET_STATISTICS has no safe wrapper.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// Frames wait here for the reading thread.
const QUEUE: usize = 64 << 20;
/// Larger than any frame: segmentation offload joins up to 64 KiB.
const FRAME: usize = 128 << 10;
/// Payload kept in one capture; beyond it a capture fails.
const KEPT: usize = 256 << 20;

/// A capture that runs.
#[derive(Debug)]
pub struct Sniffer {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<Vec<Segment>>>>,
}

/// One TCP segment with a payload.
#[derive(Clone, Debug)]
pub struct Segment {
    /// From.
    pub source: SocketAddr,
    /// To.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What was captured.
#[derive(Debug)]
pub struct Sniffed {
    segments: Vec<Segment>,
}

impl Sniffer {
    /// Starts in a namespace.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn start(netns: &Netns) -> Result<Self> {
        let all = i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
        let socket = netns
            .enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all))))?
            .context("a packet socket (needs CAP_NET_RAW)")?;
        force_queue(&socket)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let reader = std::thread::spawn(move || read(socket, &stopping));
        Ok(Self {
            stop,
            reader: Some(reader),
        })
    }

    /// Stops, after everything that is queued was read.
    ///
    /// # Errors
    /// When the kernel dropped frames: then nothing could be claimed.
    pub fn stop(mut self) -> Result<Sniffed> {
        self.stop.store(true, Ordering::Relaxed);
        let reader = self.reader.take().ok_or_else(|| anyhow!("stopped twice"))?;
        let segments = reader
            .join()
            .map_err(|_| anyhow!("the capturing thread panicked"))??;
        Ok(Sniffed { segments })
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Sniffed {
    /// Whether any segment carries this text.
    #[must_use]
    pub fn sees(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.segments.iter().any(|segment| {
            segment
                .payload
                .windows(text.len())
                .any(|window| window == text)
        })
    }

    /// The lower port of each connection that carried bytes: the servers'.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        self.segments
            .iter()
            .map(|segment| segment.source.port().min(segment.destination.port()))
            .collect()
    }

    /// The segments to or from a port.
    pub fn on_port(&self, port: u16) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| {
            segment.source.port() == port || segment.destination.port() == port
        })
    }

    /// Whether connections on this port began with a TLS handshake record, each of them.
    #[must_use]
    pub fn begins_with_tls(&self, port: u16) -> bool {
        let mut known = BTreeSet::new();
        let firsts: Vec<&Segment> = self
            .on_port(port)
            .filter(|segment| {
                segment.destination.port() == port
                    && known.insert((segment.source, segment.destination))
            })
            .collect();
        !firsts.is_empty()
            && firsts
                .iter()
                .all(|segment| segment.payload.starts_with(&[0x16, 0x03]))
    }
}

fn read(mut socket: Socket, stop: &AtomicBool) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut kept = 0;
    let mut frame = vec![0; FRAME];
    loop {
        match socket.read(&mut frame) {
            Ok(length) => {
                if let Some(segment) = segment(&frame[..length]) {
                    kept += segment.payload.len();
                    segments.push(segment);
                }
            }
            // Only an empty queue may end a capture.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("capturing"),
        }
        if kept > KEPT {
            bail!("captured more than {KEPT} bytes: stop earlier");
        }
    }
    match dropped(&socket)? {
        0 => Ok(segments),
        lost => bail!("the kernel dropped {lost} frames of the capture"),
    }
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return None;
    };
    let payload = tcp.payload();
    (!payload.is_empty()).then(|| Segment {
        source: SocketAddr::new(source, tcp.source_port()),
        destination: SocketAddr::new(destination, tcp.destination_port()),
        payload: payload.to_vec(),
    })
}

/// Beyond the limit for ordinary processes.
fn force_queue(socket: &Socket) -> Result<()> {
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::RcvBufForce;
    setsockopt(socket, RcvBufForce, &QUEUE).context("enlarging the capture's queue")
}

fn dropped(socket: &Socket) -> Result<u32> {
    let mut statistics = [0_u32; 2];
    let mut length = libc::socklen_t::try_from(size_of::<[u32; 2]>())?;
    // SAFETY: the kernel writes at most `length` bytes (tpacket_stats is two u32) into the array.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("reading the capture's statistics");
    }
    Ok(statistics[1])
}
