//! A backend that reads HTTP/1.1 by the letter and remembers the first request whose bounds two
//! servers could read differently.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    doubt: Arc<Mutex<Option<String>>>,
}

/// What ends a connection here.
enum End {
    /// Its other end.
    Closed,
    /// Something in a request.
    Doubt(String),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

impl Backend {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let doubt = Arc::new(Mutex::new(None));
        let found = doubt.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let found = found.clone();
                thread::spawn(move || {
                    if let End::Doubt(doubt) = serve(connection) {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        found.get_or_insert(doubt);
                    }
                });
            }
        });
        Self { address, doubt }
    }

    /// What was found, once.
    pub(super) fn doubt(&self) -> Option<String> {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        doubt.take()
    }
}

/// Request after request.
fn serve(connection: TcpStream) -> End {
    let Ok(mut writer) = connection.try_clone() else {
        return End::Closed;
    };
    let mut reader = BufReader::new(connection);
    loop {
        let request = head(&mut reader).and_then(|body| match body {
            Body::Length(length) => skip(&mut reader, length),
            Body::Chunked => chunks(&mut reader),
        });
        if let Err(end) = request {
            return end;
        }
        if writer.write_all(ANSWER).is_err() {
            return End::Closed;
        }
    }
}

enum Body {
    Length(u64),
    Chunked,
}

/// A line without its end, which is CR LF; neither of them nor NUL stands in it.
fn line(reader: &mut impl BufRead) -> Result<Vec<u8>, End> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(End::Closed);
    }
    let whole = line.pop() == Some(b'\r') && !line.iter().any(|b| matches!(b, b'\r' | 0));
    match whole {
        true => Ok(line),
        false => Err(End::Doubt(format!(
            "a line {:?}",
            String::from_utf8_lossy(&line)
        ))),
    }
}

fn head(reader: &mut impl BufRead) -> Result<Body, End> {
    let first = line(reader)?;
    let words: Vec<_> = first.split(|byte| *byte == b' ').collect();
    let doubt = |what: &str, of: &[u8]| {
        Err(End::Doubt(format!(
            "{what}: {:?}",
            String::from_utf8_lossy(of)
        )))
    };
    let [_, path, b"HTTP/1.1"] = words[..] else {
        return doubt("a first line", &first);
    };
    if path.is_empty() || path.iter().any(u8::is_ascii_control) {
        return doubt("a path", &first);
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), 0, 0);
    loop {
        let header = line(reader)?;
        if header.is_empty() {
            break;
        }
        let Some(colon) = header.iter().position(|byte| *byte == b':') else {
            return doubt("no header", &header);
        };
        let (name, value) = header.split_at(colon);
        let value = value[1..].trim_ascii();
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return doubt("a header's name", &header);
        }
        match name.to_ascii_lowercase().as_slice() {
            b"content-length" => match decimal(value) {
                Some(length) => lengths.push(length),
                None => return doubt("a length", &header),
            },
            b"transfer-encoding" if value == b"chunked" => codings += 1,
            b"transfer-encoding" => return doubt("a coding", &header),
            b"host" => hosts += 1,
            _ => {}
        }
    }
    match (lengths[..].as_ref(), codings, hosts) {
        ([], 0, 0..=1) => Ok(Body::Length(0)),
        ([length], 0, 0..=1) => Ok(Body::Length(*length)),
        ([], 1, 0..=1) => Ok(Body::Chunked),
        _ => doubt("several lengths, codings or hosts after", &first),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Digits and nothing else: a sign or a space is read by some and not by others.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

fn chunks(reader: &mut impl BufRead) -> Result<(), End> {
    loop {
        let size = line(reader)?;
        let text = String::from_utf8_lossy(&size).into_owned();
        let digits = text.split(';').next().unwrap_or_default();
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let length = u64::from_str_radix(digits, 16).ok().filter(|_| plain);
        match length {
            None => return Err(End::Doubt(format!("a chunk's size {text:?}"))),
            Some(0) => break,
            Some(length) => {
                skip(reader, length)?;
                if !line(reader)?.is_empty() {
                    return Err(End::Doubt("a chunk longer than its size".to_owned()));
                }
            }
        }
    }
    while !line(reader)?.is_empty() {}
    Ok(())
}

fn skip(reader: &mut impl BufRead, length: u64) -> Result<(), End> {
    let taken = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    if taken < length {
        Err(End::Closed)
    } else {
        Ok(())
    }
}
