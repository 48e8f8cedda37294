//! Calls and streams of gRPC that a plugin makes. They begin once its call has ended.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::GrpcService;
use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;
use http::HeaderMap;
use prost::Message as _;

use super::streams::MOST_CALLS;
use super::{Done, Functions, Guest, Status, give, look, text, told, write_number};
use crate::grpc;
use crate::wasm::calls::{AskGrpc, Kind, Line, Outgoing};
use crate::wasm::map::{Map, pairs};
use crate::wasm::state::State;

pub(super) fn put(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    functions.env(
        "proxy_grpc_call",
        |mut guest: Guest<'_>,
         service: u32,
         service_length: u32,
         name: u32,
         name_length: u32,
         method: u32,
         method_length: u32,
         metadata: u32,
         metadata_length: u32,
         message: u32,
         message_length: u32,
         timeout: u32,
         token_at: u32| {
            let names = [(name, name_length), (method, method_length)];
            let ask = ask(
                &guest,
                (service, service_length),
                names,
                (metadata, metadata_length),
            );
            told(ask.and_then(|mut ask| {
                ask.timeout = Some(Duration::from_millis(timeout.into()));
                push(&ask.messages, look(&guest, message, message_length)?)?;
                ask.messages.close();
                begin(&mut guest, ask, Kind::Call(None), token_at)
            }))
        },
    )?;
    functions.env(
        "proxy_grpc_stream",
        |mut guest: Guest<'_>,
         service: u32,
         service_length: u32,
         name: u32,
         name_length: u32,
         method: u32,
         method_length: u32,
         metadata: u32,
         metadata_length: u32,
         token_at: u32| {
            let names = [(name, name_length), (method, method_length)];
            let ask = ask(
                &guest,
                (service, service_length),
                names,
                (metadata, metadata_length),
            );
            let kind = Kind::Stream {
                sent_all: false,
                ended: false,
            };
            told(ask.and_then(|ask| begin(&mut guest, ask, kind, token_at)))
        },
    )?;
    functions.env(
        "proxy_grpc_send",
        |guest: Guest<'_>, token: u32, message: u32, length: u32, end: u32| {
            told(look(&guest, message, length).and_then(|message| {
                let line = guest.data().open.grpc.get(&token).ok_or(Status::NotFound)?;
                match line.kind {
                    Kind::Call(_) => return Err(Status::BadArgument),
                    // Nobody hears it any more, as it learns or has learned.
                    Kind::Stream { ended: true, .. } => return Ok(()),
                    Kind::Stream { .. } => {}
                }
                // One without bytes is a message too.
                let pushed = push(&line.messages, message);
                if end != 0 {
                    line.messages.close();
                }
                pushed
            }))
        },
    )?;
    functions.env("proxy_grpc_close", |mut guest: Guest<'_>, token: u32| {
        told(close(guest.data_mut(), token))
    })?;
    functions.env("proxy_grpc_cancel", |mut guest: Guest<'_>, token: u32| {
        let line = guest.data_mut().open.grpc.remove(&token);
        told(line.map(drop).ok_or(Status::NotFound))
    })?;
    functions.env(
        "proxy_get_status",
        |mut guest: Guest<'_>, code_at: u32, at: u32, length_at: u32| {
            let (code, message) = guest.data().status.clone();
            told(
                write_number(&mut guest, code_at, code)
                    .and_then(|()| give(&mut guest, message.as_bytes(), at, length_at)),
            )
        },
    )
}

/// A call is given up; of a stream no more is sent, and what comes is still heard.
fn close(state: &mut State, token: u32) -> Done {
    let open = &mut state.open.grpc;
    let line = open.get_mut(&token).ok_or(Status::NotFound)?;
    let over = match &mut line.kind {
        Kind::Call(_) => true,
        Kind::Stream { sent_all, ended } => {
            *sent_all = true;
            *ended
        }
    };
    line.messages.close();
    if over {
        open.remove(&token);
    }
    Ok(())
}

/// Puts a message behind those that are on their way.
fn push(messages: &Outgoing, message: &[u8]) -> Done {
    let pushed = grpc::framed(message).is_some_and(|message| messages.push(message));
    pushed.then_some(()).ok_or(Status::InternalFailure)
}

fn ask(
    guest: &Guest<'_>,
    service: (u32, u32),
    names: [(u32, u32); 2],
    metadata: (u32, u32),
) -> Result<AskGrpc, Status> {
    let target = look(guest, service.0, service.1)?;
    let calls = &guest.data().calls;
    let (cluster, authority) = target_of(target, |cluster| calls.has(cluster))?;
    let [name, method] = names;
    let (name, method) = (
        text(guest, name.0, name.1)?,
        text(guest, method.0, method.1)?,
    );
    let mut map = Map::plain(HeaderMap::new());
    let list = pairs(look(guest, metadata.0, metadata.1)?).ok_or(Status::ParseFailure)?;
    for (name, value) in list {
        map.add(name, value)?;
    }
    Ok(AskGrpc {
        token: 0,
        cluster,
        authority,
        path: format!("/{name}/{method}"),
        metadata: map.headers,
        timeout: None,
        messages: Outgoing::default(),
    })
}

/// The cluster that is meant, and its host where it is told: a cluster's name, or a `GrpcService` of
/// Envoy's. A name could be such a message by chance, so that clusters' names come first.
fn target_of(
    target: &[u8],
    has: impl Fn(&str) -> bool,
) -> Result<(String, Option<String>), Status> {
    if let Ok(name) = std::str::from_utf8(target)
        && has(name)
    {
        return Ok((name.to_owned(), None));
    }
    // Envoy says so of a cluster that isn't there.
    let service = GrpcService::decode(target).map_err(|_| Status::ParseFailure)?;
    match service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) if has(&envoy.cluster_name) => {
            let authority = Some(envoy.authority).filter(|authority| !authority.is_empty());
            Ok((envoy.cluster_name, authority))
        }
        Some(TargetSpecifier::EnvoyGrpc(_)) => Err(Status::InternalFailure),
        Some(TargetSpecifier::GoogleGrpc(_)) | None => Err(Status::ParseFailure),
    }
}

fn begin(guest: &mut Guest<'_>, mut ask: AskGrpc, kind: Kind, token_at: u32) -> Done {
    let state = guest.data_mut();
    let token = state
        .open
        .number(MOST_CALLS)
        .ok_or(Status::InternalFailure)?;
    ask.token = token;
    let line = Line {
        context: state.context,
        messages: ask.messages.clone(),
        kind,
        running: None,
    };
    state.open.grpc.insert(token, line);
    state.asks_grpc.push(ask);
    write_number(guest, token_at, token)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::grpc_service::EnvoyGrpc;

    use super::*;

    #[test]
    fn a_cluster_is_named_by_itself_or_in_a_message() {
        let has = |cluster: &str| cluster == "known";
        assert_eq!(target_of(b"known", has), Ok(("known".to_owned(), None)));
        assert_eq!(target_of(b"unknown", has), Err(Status::ParseFailure));
        let service = |cluster: &str| {
            let envoy = EnvoyGrpc {
                cluster_name: cluster.to_owned(),
                authority: "host".to_owned(),
                ..EnvoyGrpc::default()
            };
            let target_specifier = Some(TargetSpecifier::EnvoyGrpc(envoy));
            let service = GrpcService {
                target_specifier,
                ..GrpcService::default()
            };
            service.encode_to_vec()
        };
        let known = ("known".to_owned(), Some("host".to_owned()));
        assert_eq!(target_of(&service("known"), has), Ok(known));
        let other = target_of(&service("other"), has);
        assert_eq!(other, Err(Status::InternalFailure));
    }
}
