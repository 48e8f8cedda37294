//! Headers, trailers and bodies: those of the stream whose turn it is, and those of an answer that the
//! plugin had asked a cluster for.

use bytes::{Bytes, BytesMut};

use super::{Done, Functions, Guest, Status, give, look, read, told, write_number};
use crate::wasm::map::{Map, pairs, pairs_to_bytes};
use crate::wasm::state::State;

/// Bytes that a body may be made by a plugin.
const MOST: usize = crate::wasm::MOST_HELD;

pub(super) fn put(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_get_header_map_pairs",
        |mut guest: Guest<'_>, kind: u32, at: u32, length_at: u32| {
            let done = match map(guest.data_mut(), kind) {
                // There is a map, and nothing in it, where the message has none.
                Ok(map) => {
                    let bytes = map.map_or_else(|| pairs_to_bytes(&[]), |map| map.to_bytes());
                    give(&mut guest, &bytes, at, length_at)
                }
                Err(status) => Err(status),
            };
            told(done)
        },
    )?;
    functions.env(
        "proxy_set_header_map_pairs",
        |mut guest: Guest<'_>, kind: u32, at: u32, length: u32| {
            told(read(&guest, at, length).and_then(|bytes| {
                let pairs = pairs(&bytes).ok_or(Status::ParseFailure)?;
                writable(guest.data_mut(), kind)?.set_all(&pairs)
            }))
        },
    )?;
    functions.env(
        "proxy_get_header_map_size",
        |mut guest: Guest<'_>, kind: u32, at: u32| {
            let size = map(guest.data_mut(), kind).map(|map| match map {
                Some(map) => map.to_bytes().len(),
                None => 0,
            });
            told(size.and_then(|size| {
                write_number(&mut guest, at, u32::try_from(size).unwrap_or(u32::MAX))
            }))
        },
    )?;
    functions.env(
        "proxy_get_header_map_value",
        |mut guest: Guest<'_>,
         kind: u32,
         at: u32,
         length: u32,
         value_at: u32,
         value_length: u32| {
            let name = read(&guest, at, length);
            let value = name.and_then(|name| {
                let map = map(guest.data_mut(), kind)?;
                map.and_then(|map| map.get(&name)).ok_or(Status::NotFound)
            });
            told(value.and_then(|value| give(&mut guest, &value, value_at, value_length)))
        },
    )?;
    functions.env(
        "proxy_remove_header_map_value",
        |mut guest: Guest<'_>, kind: u32, at: u32, length: u32| {
            told(read(&guest, at, length).and_then(|name| {
                writable(guest.data_mut(), kind)?.remove(&name);
                Ok(())
            }))
        },
    )?;
    functions.env(
        "proxy_replace_header_map_value",
        |mut guest: Guest<'_>, kind: u32, at: u32, length: u32, value: u32, value_length: u32| {
            let pair = pair(&guest, (at, length), (value, value_length));
            told(
                pair.and_then(|(name, value)| writable(guest.data_mut(), kind)?.set(&name, &value)),
            )
        },
    )?;
    functions.env(
        "proxy_add_header_map_value",
        |mut guest: Guest<'_>, kind: u32, at: u32, length: u32, value: u32, value_length: u32| {
            let pair = pair(&guest, (at, length), (value, value_length));
            told(
                pair.and_then(|(name, value)| writable(guest.data_mut(), kind)?.add(&name, &value)),
            )
        },
    )?;
    bodies(functions)
}

fn bodies(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_get_buffer_bytes",
        |mut guest: Guest<'_>, kind: u32, start: u32, most: u32, at: u32, length_at: u32| {
            let part = buffer(guest.data_mut(), kind).and_then(|bytes| {
                let end = start.saturating_add(most) as usize;
                let end = end.min(bytes.len());
                let part = bytes.get(start as usize..end).unwrap_or_default();
                match part.is_empty() && !bytes.is_empty() && most > 0 {
                    true => Err(Status::BadArgument),
                    false => Ok(Bytes::copy_from_slice(part)),
                }
            });
            told(part.and_then(|part| give(&mut guest, &part, at, length_at)))
        },
    )?;
    functions.env(
        "proxy_get_buffer_status",
        |mut guest: Guest<'_>, kind: u32, length_at: u32, flags_at: u32| {
            let length = buffer(guest.data_mut(), kind).map(<[u8]>::len);
            told(length.and_then(|length| {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                write_number(&mut guest, length_at, length)?;
                write_number(&mut guest, flags_at, 0)
            }))
        },
    )?;
    functions.env(
        "proxy_set_buffer_bytes",
        |mut guest: Guest<'_>, kind: u32, start: u32, size: u32, at: u32, length: u32| {
            told(read(&guest, at, length).and_then(|new| {
                let body = body(guest.data_mut(), kind)?;
                replace(body, start as usize, size as usize, &new)
            }))
        },
    )
}

/// Puts bytes in place of some of a body's: before it, behind it or in the middle.
fn replace(body: &mut BytesMut, start: usize, size: usize, new: &[u8]) -> Done {
    let start = start.min(body.len());
    let end = start.saturating_add(size).min(body.len());
    if body.len() - (end - start) + new.len() > MOST {
        return Err(Status::BadArgument);
    }
    let behind = body.split_off(end);
    body.truncate(start);
    body.extend_from_slice(new);
    body.extend_from_slice(&behind);
    Ok(())
}

fn pair(
    guest: &Guest<'_>,
    name: (u32, u32),
    value: (u32, u32),
) -> Result<(Vec<u8>, Vec<u8>), Status> {
    let name = look(guest, name.0, name.1)?.to_vec();
    Ok((name, read(guest, value.0, value.1)?))
}

/// The map of this number; none where the message has none.
fn map(state: &mut State, kind: u32) -> Result<Option<&Map>, Status> {
    if let 6 | 7 = kind {
        let called = state.called.as_ref().ok_or(Status::NotFound)?;
        return Ok(match kind {
            6 => called.headers.as_ref(),
            _ => called.trailers.as_ref(),
        });
    }
    if let 4 | 5 = kind {
        let told = &state.told[usize::from(kind == 5)];
        return told.as_ref().map(Some).ok_or(Status::NotFound);
    }
    let stream = state.stream().ok_or(Status::BadArgument)?;
    match kind {
        0 => Ok(stream.up.headers.as_ref()),
        1 => Ok(stream.up.trailers.as_ref()),
        2 => Ok(stream.down.headers.as_ref()),
        3 => Ok(stream.down.trailers.as_ref()),
        _ => Err(Status::BadArgument),
    }
}

fn writable(state: &mut State, kind: u32) -> Result<&mut Map, Status> {
    let stream = state.stream().ok_or(Status::BadArgument)?;
    let map = match kind {
        0 => stream.up.headers.as_mut(),
        1 => stream.up.trailers.as_mut(),
        2 => stream.down.headers.as_mut(),
        3 => stream.down.trailers.as_mut(),
        _ => None,
    };
    map.ok_or(Status::BadArgument)
}

/// The bytes of this number.
fn buffer(state: &mut State, kind: u32) -> Result<&[u8], Status> {
    match kind {
        4 => {
            let called = state.called.as_ref().ok_or(Status::NotFound)?;
            Ok(&called.body)
        }
        5 => state.message.as_deref().ok_or(Status::NotFound),
        6 => Ok(&state.settings.vm_configuration),
        7 => Ok(&state.settings.configuration),
        0 | 1 => body(state, kind).map(|body| &**body),
        _ => Err(Status::NotFound),
    }
}

/// A body while a call is about it.
fn body(state: &mut State, kind: u32) -> Result<&mut BytesMut, Status> {
    let stream = state.stream().ok_or(Status::NotFound)?;
    let message = match kind {
        0 => &mut stream.up,
        1 => &mut stream.down,
        _ => return Err(Status::BadArgument),
    };
    match message.has_body {
        true => Ok(&mut message.body),
        false => Err(Status::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_put_before_into_and_behind_a_body() {
        let changed = |start, size, new: &[u8]| {
            let mut body = BytesMut::from(&b"body"[..]);
            replace(&mut body, start, size, new).unwrap();
            body
        };
        assert_eq!(changed(0, 0, b"a "), "a body");
        assert_eq!(changed(0, 4, b"other"), "other");
        assert_eq!(changed(0, usize::MAX, b""), "");
        assert_eq!(changed(4, 0, b"!"), "body!");
        assert_eq!(changed(99, 99, b"!"), "body!");
        assert_eq!(changed(1, 2, b"--"), "b--y");
        let mut body = BytesMut::from(&b"body"[..]);
        let large = vec![0; MOST];
        assert_eq!(replace(&mut body, 0, 0, &large), Err(Status::BadArgument));
        assert_eq!(body, "body");
    }
}
