//! What a plugin does with a stream: have it go on, answer it, break it off, ask a cluster about it,
//! and look at what is known of it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::{Done, Functions, Guest, Status, give, look, read, text, told, write_number};
use crate::wasm::calls::Ask;
use crate::wasm::map::{Head, Map, RequestLine, pairs};
use crate::wasm::property;
use crate::wasm::state::{Answer, State, Way};

/// Calls of one plugin on one worker that may wait for an answer.
pub(super) const MOST_CALLS: usize = 1024;

pub(super) fn put(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_continue_stream",
        |mut guest: Guest<'_>, kind: u32| {
            told(match kind {
                0 => resume(guest.data_mut(), Way::Up),
                1 => resume(guest.data_mut(), Way::Down),
                2 | 3 => Err(Status::Unimplemented),
                _ => Err(Status::BadArgument),
            })
        },
    )?;
    functions.env("proxy_continue_request", |mut guest: Guest<'_>| {
        told(resume(guest.data_mut(), Way::Up))
    })?;
    functions.env("proxy_continue_response", |mut guest: Guest<'_>| {
        told(resume(guest.data_mut(), Way::Down))
    })?;
    functions.env("proxy_close_stream", |mut guest: Guest<'_>, kind: u32| {
        told(match (kind, guest.data_mut().stream()) {
            (0 | 1, Some(stream)) => {
                stream.closed = true;
                stream.wake();
                Ok(())
            }
            (2 | 3, _) => Err(Status::Unimplemented),
            _ => Err(Status::BadArgument),
        })
    })?;
    // The route is looked up again after every change to a request's headers.
    functions.env("proxy_clear_route_cache", |mut guest: Guest<'_>| {
        let stream = guest.data_mut().stream();
        told(match stream.and_then(|stream| stream.up.headers.as_mut()) {
            Some(map) => {
                map.changed = true;
                Ok(())
            }
            None => Err(Status::BadArgument),
        })
    })?;
    functions.env(
        "proxy_set_effective_context",
        |mut guest: Guest<'_>, id: u32| {
            let state = guest.data_mut();
            told(
                match id == super::super::ROOT || state.streams.contains_key(&id) {
                    true => {
                        state.context = id;
                        Ok(())
                    }
                    false => Err(Status::BadArgument),
                },
            )
        },
    )?;
    functions.env("proxy_done", |_: Guest<'_>| told(Err(Status::NotFound)))?;
    functions.env(
        "proxy_send_local_response",
        |mut guest: Guest<'_>,
         status: u32,
         details: u32,
         details_length: u32,
         body: u32,
         body_length: u32,
         headers: u32,
         headers_length: u32,
         grpc: i32| {
            let answer = answer(
                &guest,
                status,
                (details, details_length),
                (body, body_length),
                (headers, headers_length),
                grpc,
            );
            told(answer.and_then(|answer| {
                let stream = guest.data_mut().stream().ok_or(Status::BadArgument)?;
                // It is answered once.
                if stream.answer.is_some() {
                    return Err(Status::BadArgument);
                }
                stream.answer = Some(answer);
                stream.wake();
                Ok(())
            }))
        },
    )?;
    functions.env(
        "proxy_http_call",
        |mut guest: Guest<'_>,
         cluster: u32,
         cluster_length: u32,
         headers: u32,
         headers_length: u32,
         body: u32,
         body_length: u32,
         _trailers: u32,
         _trailers_length: u32,
         timeout: u32,
         token_at: u32| {
            let ask = ask(
                &guest,
                (cluster, cluster_length),
                (headers, headers_length),
                (body, body_length),
                timeout,
            );
            told(ask.and_then(|ask| call(&mut guest, ask, token_at)))
        },
    )?;
    properties(functions)
}

fn properties(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_get_property",
        |mut guest: Guest<'_>, path: u32, path_length: u32, at: u32, length_at: u32| {
            let value = read(&guest, path, path_length)
                .and_then(|path| property::of(guest.data_mut(), &path).ok_or(Status::NotFound));
            told(value.and_then(|value| give(&mut guest, &value, at, length_at)))
        },
    )?;
    functions.env(
        "proxy_set_property",
        |mut guest: Guest<'_>, path: u32, path_length: u32, value: u32, value_length: u32| {
            let pair = read(&guest, path, path_length)
                .and_then(|path| Ok((path, read(&guest, value, value_length)?)));
            told(pair.and_then(|(path, value)| {
                let stream = guest.data_mut().stream().ok_or(Status::NotFound)?;
                let known = stream.known.upgrade().ok_or(Status::NotFound)?;
                match known.keep(&path, value) {
                    true => Ok(()),
                    false => Err(Status::BadArgument),
                }
            }))
        },
    )
}

fn resume(state: &mut State, way: Way) -> Done {
    let stream = state.stream().ok_or(Status::BadArgument)?;
    let message = stream.message(way);
    message.resumed = true;
    stream.wake();
    Ok(())
}

fn answer(
    guest: &Guest<'_>,
    status: u32,
    details: (u32, u32),
    body: (u32, u32),
    headers: (u32, u32),
    grpc: i32,
) -> Result<Answer, Status> {
    let status = u16::try_from(status).map_err(|_| Status::BadArgument)?;
    let mut map = Map::plain(HeaderMap::new());
    let list = pairs(look(guest, headers.0, headers.1)?).ok_or(Status::ParseFailure)?;
    for (name, value) in list {
        map.add(name, value)?;
    }
    Ok(Answer {
        status: StatusCode::from_u16(status).map_err(|_| Status::BadArgument)?,
        details: text(guest, details.0, details.1)?,
        body: Bytes::copy_from_slice(look(guest, body.0, body.1)?),
        headers: map.headers,
        grpc: u32::try_from(grpc).ok(),
    })
}

fn ask(
    guest: &Guest<'_>,
    cluster: (u32, u32),
    headers: (u32, u32),
    body: (u32, u32),
    timeout: u32,
) -> Result<Ask, Status> {
    let list = pairs(look(guest, headers.0, headers.1)?).ok_or(Status::ParseFailure)?;
    let missing = |name: &str| !list.iter().any(|(known, _)| *known == name.as_bytes());
    if missing(":path") || missing(":method") || missing(":authority") {
        return Err(Status::BadArgument);
    }
    let line = RequestLine {
        method: Method::GET,
        scheme: "http",
        authority: http::HeaderValue::from_static(""),
        path: None,
    };
    let mut map = Map {
        head: Head::Request(Box::new(line)),
        ..Map::default()
    };
    for (name, value) in list {
        map.add(name, value)?;
    }
    Ok(Ask {
        token: 0,
        cluster: text(guest, cluster.0, cluster.1)?,
        headers: map,
        body: Bytes::copy_from_slice(look(guest, body.0, body.1)?),
        timeout: Duration::from_millis(timeout.into()),
    })
}

fn call(guest: &mut Guest<'_>, mut ask: Ask, token_at: u32) -> Done {
    let state = guest.data_mut();
    // Envoy says so of a cluster that isn't there, too.
    if !state.calls.has(&ask.cluster) {
        return Err(Status::BadArgument);
    }
    let token = state
        .open
        .number(MOST_CALLS)
        .ok_or(Status::InternalFailure)?;
    ask.token = token;
    state.open.http.insert(token, state.context);
    state.asks.push(ask);
    write_number(guest, token_at, token)
}
