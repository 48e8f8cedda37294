//! Headers and trailers as a plugin sees them: what HTTP/2 calls pseudo headers stand among them, and
//! `Host` is `:authority`. And the bytes that lists of them go to and fro as.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::abi::Status;

/// Headers or trailers.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// What stands before the headers.
    pub head: Head,
    /// The headers.
    pub headers: HeaderMap,
    /// Something was changed.
    pub changed: bool,
}

/// What stands before the headers.
#[derive(Debug, Clone, Default)]
pub enum Head {
    /// Nothing: these are trailers.
    #[default]
    None,
    /// A request's line.
    Request(Box<RequestLine>),
    /// An answer's status.
    Response(StatusCode),
}

/// A request's line.
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// `:method`
    pub method: Method,
    /// `:scheme`
    pub scheme: &'static str,
    /// `:authority`
    pub authority: HeaderValue,
    /// `:path`; none for a plain CONNECT.
    pub path: Option<PathAndQuery>,
}

/// The key of a header.
enum Key {
    Pseudo(Pseudo),
    Name(HeaderName),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
}

const PSEUDO: [(&str, Pseudo); 5] = [
    (":authority", Pseudo::Authority),
    (":path", Pseudo::Path),
    (":method", Pseudo::Method),
    (":scheme", Pseudo::Scheme),
    (":status", Pseudo::Status),
];

impl Map {
    /// Trailers, or headers that stand alone.
    #[must_use]
    pub fn plain(headers: HeaderMap) -> Self {
        Self {
            headers,
            ..Self::default()
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let shown = PSEUDO.iter().filter(|(_, key)| self.pseudo(*key).is_some());
        let host = matches!(self.head, Head::Request(_)) && self.headers.contains_key(header::HOST);
        shown.count() + self.headers.len() - usize::from(host)
    }

    /// Bytes of all names and values.
    pub(super) fn size(&self) -> u64 {
        let pseudo = PSEUDO.iter().filter_map(|(name, key)| {
            let value = self.pseudo(*key)?;
            Some(name.len() + value.len())
        });
        let shows_host = !matches!(self.head, Head::Request(_));
        let headers = self.headers.iter();
        let headers = headers.filter(|(name, _)| shows_host || *name != header::HOST);
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        pseudo.chain(headers).map(|bytes| bytes as u64).sum()
    }

    /// The values of a header, with commas between them.
    pub(super) fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        match self.key(name)? {
            Key::Pseudo(key) => self.pseudo(key).map(|value| value.as_bytes().to_vec()),
            Key::Name(name) => {
                let values = self.headers.get_all(name).iter().map(HeaderValue::as_bytes);
                let values: Vec<_> = values.collect();
                (!values.is_empty()).then(|| values.join(&b","[..]))
            }
        }
    }

    /// Adds a value.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Status> {
        match self.key(name).ok_or(Status::BadArgument)? {
            Key::Pseudo(_) => self.set(name, value),
            Key::Name(name) => {
                let value = HeaderValue::from_bytes(value).map_err(|_| Status::BadArgument)?;
                self.headers.append(name, value);
                self.changed = true;
                Ok(())
            }
        }
    }

    /// Sets a value in place of all that there are.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), Status> {
        let bad = |_| Status::BadArgument;
        match self.key(name).ok_or(Status::BadArgument)? {
            Key::Pseudo(key) => self.set_pseudo(key, value)?,
            Key::Name(name) => {
                let value = HeaderValue::from_bytes(value);
                self.headers.insert(name, value.map_err(bad)?);
            }
        }
        self.changed = true;
        Ok(())
    }

    /// Takes a header away. What every message must have stays.
    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(Key::Name(name)) = self.key(name) {
            self.changed |= self.headers.remove(name).is_some();
        }
    }

    /// Sets all of them. Pseudo headers that aren't among them stay.
    pub(super) fn set_all(&mut self, pairs: &[(&[u8], &[u8])]) -> Result<(), Status> {
        let host = self.headers.remove(header::HOST);
        self.headers.clear();
        if let (Head::Request(_), Some(host)) = (&self.head, host) {
            self.headers.insert(header::HOST, host);
        }
        self.changed = true;
        pairs
            .iter()
            .try_for_each(|(name, value)| self.add(name, value))
    }

    /// All of them, as bytes: the number of pairs, the lengths of names and values, then each of
    /// them with a zero behind it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let pseudo = PSEUDO.iter().filter_map(|(name, key)| {
            let value = self.pseudo(*key)?;
            Some((*name, Cow::Owned(value.into_owned().into_bytes())))
        });
        let shows_host = !matches!(self.head, Head::Request(_));
        let headers = self.headers.iter();
        let headers = headers.filter(|(name, _)| shows_host || *name != header::HOST);
        let headers = headers.map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_bytes())));
        let pairs: Vec<_> = pseudo.chain(headers).collect();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), &**value))
            .collect();
        pairs_to_bytes(&pairs)
    }

    fn key(&self, name: &[u8]) -> Option<Key> {
        let name = name.to_ascii_lowercase();
        let mut known = PSEUDO.iter();
        if let Some((_, key)) = known.find(|(known, _)| known.as_bytes() == name) {
            return Some(Key::Pseudo(*key));
        }
        match HeaderName::from_bytes(&name).ok()? {
            name if name == header::HOST && matches!(self.head, Head::Request(_)) => {
                Some(Key::Pseudo(Pseudo::Authority))
            }
            name => Some(Key::Name(name)),
        }
    }

    fn pseudo(&self, key: Pseudo) -> Option<Cow<'_, str>> {
        match (&self.head, key) {
            (Head::Request(line), Pseudo::Method) => Some(line.method.as_str().into()),
            (Head::Request(line), Pseudo::Scheme) => Some(line.scheme.into()),
            (Head::Request(line), Pseudo::Authority) => {
                Some(String::from_utf8_lossy(line.authority.as_bytes()))
            }
            (Head::Request(line), Pseudo::Path) => Some(line.path.as_ref()?.as_str().into()),
            (Head::Response(status), Pseudo::Status) => Some(status.as_str().to_owned().into()),
            _ => None,
        }
    }

    fn set_pseudo(&mut self, key: Pseudo, value: &[u8]) -> Result<(), Status> {
        let text = std::str::from_utf8(value).map_err(|_| Status::BadArgument)?;
        let bad = Status::BadArgument;
        match (&mut self.head, key) {
            (Head::Request(line), Pseudo::Method) => line.method = text.parse().map_err(|_| bad)?,
            (Head::Request(line), Pseudo::Scheme) => {
                line.scheme = match text {
                    "http" => "http",
                    "https" => "https",
                    _ => return Err(bad),
                }
            }
            (Head::Request(line), Pseudo::Authority) => {
                let authority = text.parse::<http::uri::Authority>().map_err(|_| bad)?;
                line.authority = HeaderValue::from_str(authority.as_str()).map_err(|_| bad)?;
            }
            (Head::Request(line), Pseudo::Path) => {
                // It is matched and forwarded as a path, so that it must be one.
                let path = Some(text).filter(|text| text.starts_with('/')).ok_or(bad)?;
                line.path = Some(path.parse().map_err(|_| bad)?);
            }
            (Head::Response(status), Pseudo::Status) => {
                *status = StatusCode::from_bytes(value).map_err(|_| bad)?;
            }
            _ => return Err(bad),
        }
        Ok(())
    }
}

/// Pairs as bytes.
pub(super) fn pairs_to_bytes(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

/// Pairs from bytes; none where these aren't any.
pub(super) fn pairs(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let number = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let count = number(0)?;
    // Eight bytes of lengths each: what isn't that long has no so many pairs.
    let mut at = count.checked_mul(8)?.checked_add(4)?;
    if at > bytes.len() {
        return None;
    }
    let mut part = |length: usize| {
        let end = at.checked_add(length)?;
        let part = bytes.get(at..end)?;
        at = end.checked_add(1)?;
        (bytes.get(end) == Some(&0)).then_some(part)
    };
    (0..count)
        .map(|index| {
            let lengths = 4 + index * 8;
            Some((part(number(lengths)?)?, part(number(lengths + 4)?)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Map {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("a.test"));
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        Map {
            head: Head::Request(Box::new(RequestLine {
                method: Method::GET,
                scheme: "http",
                authority: HeaderValue::from_static("a.test"),
                path: Some(PathAndQuery::from_static("/a?b")),
            })),
            headers,
            changed: false,
        }
    }

    #[test]
    fn a_plugin_sees_pseudo_headers_and_the_host_as_one_of_them() {
        let map = request();
        assert_eq!(map.get(b"Host").unwrap(), b"a.test");
        assert_eq!(map.get(b":path").unwrap(), b"/a?b");
        assert_eq!(map.get(b"X-A").unwrap(), b"1,2");
        assert_eq!(map.get(b":status"), None);
        let bytes = map.to_bytes();
        let pairs = pairs(&bytes).unwrap();
        assert_eq!(pairs.len(), map.len());
        assert_eq!(pairs.len(), 6);
        assert!(pairs.iter().all(|(name, _)| *name != b"host"));
    }

    #[test]
    fn what_would_make_a_broken_message_is_refused() {
        let mut map = request();
        for (name, value) in [
            (&b":path"[..], &b"no path"[..]),
            (b":method", b"a b"),
            (b":scheme", b"ftp"),
            (b":authority", b"a b"),
            (b":status", b"200"),
            (b"x y", b"1"),
            (b"x-a", b"1\r\nx-b: 2"),
        ] {
            assert_eq!(map.set(name, value), Err(Status::BadArgument), "{name:?}");
            assert!(!map.changed);
        }
        map.set(b":path", b"/other").unwrap();
        map.remove(b":path");
        assert_eq!(map.get(b":path").unwrap(), b"/other");
        assert!(map.changed);
    }

    #[test]
    fn bytes_that_are_no_pairs_are_none() {
        let good = pairs_to_bytes(&[(b"a", b"b"), (b"", b"c")]);
        assert_eq!(pairs(&good).unwrap(), [(&b"a"[..], &b"b"[..]), (b"", b"c")]);
        for end in 1..good.len() {
            assert_eq!(pairs(&good[..end]), None, "{end}");
        }
        assert_eq!(pairs(&u32::MAX.to_le_bytes()), None);
        assert_eq!(pairs(b""), Some(Vec::new()));
    }
}
