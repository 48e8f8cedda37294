//! The PROXY protocol's header, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): whom the
//! connection stands for. Reads not a byte more than the header.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line end.
const LONGEST_V1: usize = 107;
/// The longest header of version 2 that is read: addresses and some extensions.
const LONGEST_V2: usize = 4 << 10;

/// Who connects, and where to; nothing where the proxy speaks for itself.
type Addresses = Option<(SocketAddr, SocketAddr)>;

pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Addresses> {
    let mut first = [0; 12];
    from.read_exact(&mut first).await?;
    match first == SIGNATURE {
        true => version_2(from).await,
        false => version_1(from, &first).await,
    }
}

async fn version_1(from: &mut (impl AsyncRead + Unpin), first: &[u8]) -> io::Result<Addresses> {
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_V1 || !line.starts_with(b"PROXY ") {
            return Err(wrong("it begins with no PROXY line"));
        }
        line.push(from.read_u8().await?);
    }
    let text = std::str::from_utf8(&line).map_err(|_| wrong("the PROXY line is no text"))?;
    let words: Vec<_> = text.trim_end().split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4" | "TCP6", source, to, source_port, port] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                Some(SocketAddr::from((ip, port.parse().ok()?)))
            };
            let both = address(source, source_port).zip(address(to, port));
            both.map(Some)
                .ok_or_else(|| wrong("the PROXY line has no addresses"))
        }
        _ => Err(wrong("the PROXY line is not as it should be")),
    }
}

async fn version_2(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Addresses> {
    let (command, family) = (from.read_u8().await?, from.read_u8().await?);
    let length = usize::from(from.read_u16().await?);
    if command >> 4 != 2 || length > LONGEST_V2 {
        return Err(wrong(
            "the PROXY header is of no known version, or too long",
        ));
    }
    let mut rest = vec![0; length];
    from.read_exact(&mut rest).await?;
    match (command & 15, family) {
        (0, _) => Ok(None),
        (1, 0x11) => addresses::<4>(&rest, |ip| Ipv4Addr::from(ip).into()),
        (1, 0x21) => addresses::<16>(&rest, |ip| Ipv6Addr::from(ip).into()),
        (1, _) => Ok(None),
        _ => Err(wrong("the PROXY header has an unknown command")),
    }
}

fn addresses<const N: usize>(bytes: &[u8], ip: fn([u8; N]) -> IpAddr) -> io::Result<Addresses> {
    let short = || wrong("the PROXY header is too short for its addresses");
    let (source, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let (to, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (source_port, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (port, _) = rest.split_first_chunk().ok_or_else(short)?;
    Ok(Some((
        (ip(*source), u16::from_be_bytes(*source_port)).into(),
        (ip(*to), u16::from_be_bytes(*port)).into(),
    )))
}

fn wrong(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a header, and what is left behind it.
    async fn parsed(mut bytes: &[u8]) -> (Result<Addresses, ErrorKind>, &[u8]) {
        let result = read(&mut bytes).await.map_err(|error| error.kind());
        (result, bytes)
    }

    #[tokio::test]
    async fn version_1_is_a_line() {
        let both = Some(("1.2.3.4:5".parse().unwrap(), "6.7.8.9:80".parse().unwrap()));
        let line = b"PROXY TCP4 1.2.3.4 6.7.8.9 5 80\r\nGET";
        assert_eq!(parsed(line).await, (Ok(both), &b"GET"[..]));
        assert_eq!(parsed(b"PROXY UNKNOWN\r\nx").await, (Ok(None), &b"x"[..]));
        for wrong in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 6.7.8.9 5\r\n",
            b"PROXY TCP4 a b 5 80\r\n      ",
            &[b'P'; 200],
        ] {
            assert_eq!(parsed(wrong).await.0, Err(ErrorKind::InvalidData));
        }
        let cut = parsed(b"PROXY TCP4 1.2").await.0;
        assert_eq!(cut, Err(ErrorKind::UnexpectedEof));
    }

    #[tokio::test]
    async fn version_2_is_binary() {
        let mut header = SIGNATURE.to_vec();
        header.extend([
            0x21, 0x11, 0, 15, 1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 0, 80, 3, 0, 0,
        ]);
        header.extend(b"GET");
        let both = Some(("1.2.3.4:5".parse().unwrap(), "6.7.8.9:80".parse().unwrap()));
        assert_eq!(parsed(&header).await, (Ok(both), &b"GET"[..]));
        header[12] = 0x20;
        assert_eq!(parsed(&header).await.0, Ok(None));
        header[12] = 0x31;
        assert_eq!(parsed(&header).await.0, Err(ErrorKind::InvalidData));
    }
}
