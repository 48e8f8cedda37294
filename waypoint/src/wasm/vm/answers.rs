//! What a plugin asks clusters for is begun once its call has ended, and what is heard of it is told in
//! calls of its own.

use bytes::Bytes;

use super::{Call, Vm};
use crate::grpc::INTERNAL;
use crate::wasm::calls::{Ask, AskGrpc, Called, Heard, Kind};
use crate::wasm::map::Map;
use crate::wasm::state::State;

impl Vm {
    /// Asks a cluster, and tells it of the answer.
    pub(super) fn ask(&self, ask: Ask) {
        let (this, token) = (self.this.clone(), ask.token);
        let answer = self.state(|state| state.calls.ask(ask));
        tokio::task::spawn_local(async move {
            let called = answer.await;
            if let Some(vm) = this.upgrade() {
                vm.answered(token, called);
            }
        });
    }

    fn answered(&self, token: u32, called: Called) {
        let count = |map: &Option<Map>| {
            let count = map.as_ref().map_or(0, Map::len);
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let (headers, trailers) = (count(&called.headers), count(&called.trailers));
        let body = u32::try_from(called.body.len()).unwrap_or(u32::MAX);
        let context = self.state(|state| {
            let context = state.open.http.remove(&token)?;
            state.called = Some(called);
            Some(context)
        });
        // Nobody waits for it any more where its stream is gone.
        if let Some(context) = context {
            let with = [context, token, headers, body, trailers];
            // Whoever waits for a plugin that fails is woken by that.
            let _ = self.call(Call::HttpCallResponse, context, &with);
            self.state(|state| state.called = None);
        }
    }

    /// Makes a call or stream of gRPC, and tells it what is heard of that.
    pub(super) fn ask_grpc(&self, ask: AskGrpc) {
        let (this, token) = (self.this.clone(), ask.token);
        let listener = move |heard| this.upgrade().is_some_and(|vm| vm.hears(token, heard));
        self.state(|state| {
            // It may have been given up again in the same call.
            let Some(line) = state.open.grpc.get_mut(&token) else {
                return;
            };
            let run = state.calls.grpc(ask, Box::new(listener));
            line.running = Some(tokio::task::spawn_local(run).abort_handle());
        });
    }

    /// Tells it what is heard; whether it listens on.
    fn hears(&self, token: u32, heard: Heard) -> bool {
        let told = self.state(|state| {
            let line = state.open.grpc.get_mut(&token)?;
            let context = line.context;
            if let Kind::Call(message) = &mut line.kind {
                let Some(closed) = one_message(message, heard) else {
                    return Some(None);
                };
                // Its task, in which this is, must come to its end.
                line.running = None;
                state.open.grpc.remove(&token);
                return Some(Some((context, closed)));
            }
            if let (Kind::Stream { sent_all, ended }, Heard::Closed(..)) = (&mut line.kind, &heard)
            {
                *ended = true;
                line.running = None;
                line.messages.close();
                if *sent_all {
                    state.open.grpc.remove(&token);
                }
            }
            Some(Some((context, heard)))
        });
        match told {
            None => false,
            Some(None) => true,
            Some(Some((context, heard))) => {
                self.tell(token, context, heard);
                self.state(|state| state.open.grpc.contains_key(&token))
            }
        }
    }

    fn tell(&self, token: u32, context: u32, heard: Heard) {
        let (call, number) = self.state(|state| state.hold(heard));
        // Whoever waits for a plugin that fails is woken by that.
        let _ = self.call(call, context, &[context, token, number]);
        self.state(|state| {
            state.told = Default::default();
            state.message = None;
            state.status = Default::default();
        });
    }
}

impl State {
    /// Holds what the plugin is told of, for it to read. Gives what it is called for, and with which
    /// number.
    fn hold(&mut self, heard: Heard) -> (Call, u32) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        match heard {
            Heard::Head(headers) => {
                let length = headers.len();
                self.told[0] = Some(Map::plain(headers));
                (Call::GrpcHead, count(length))
            }
            Heard::Message(message) => {
                let length = message.len();
                self.message = Some(message);
                (Call::GrpcMessage, count(length))
            }
            Heard::Trailers(headers) => {
                let length = headers.len();
                self.told[1] = Some(Map::plain(headers));
                (Call::GrpcTrailers, count(length))
            }
            Heard::Closed(status, message) => {
                self.status = (status, message);
                (Call::GrpcClose, status)
            }
        }
    }
}

/// What is told of a call with one answer, once it is over: the answer, or why there is none.
fn one_message(message: &mut Option<Bytes>, heard: Heard) -> Option<Heard> {
    match heard {
        Heard::Head(_) | Heard::Trailers(_) => None,
        Heard::Message(came) => {
            *message = Some(came);
            None
        }
        Heard::Closed(0, why) => Some(match message.take() {
            Some(message) => Heard::Message(message),
            None => Heard::Closed(INTERNAL, why),
        }),
        closed @ Heard::Closed(..) => Some(closed),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn of_a_call_only_its_end_is_told() {
        let message = || Heard::Message(Bytes::from_static(b"answer"));
        let mut held = None;
        assert!(one_message(&mut held, Heard::Head(HeaderMap::new())).is_none());
        assert!(one_message(&mut held, message()).is_none());
        assert!(one_message(&mut held, Heard::Trailers(HeaderMap::new())).is_none());
        let told = one_message(&mut held, Heard::Closed(0, String::new()));
        assert!(matches!(told, Some(Heard::Message(it)) if &*it == b"answer"));
        // What went wrong counts more than a message, and no message is wrong too.
        assert!(one_message(&mut held, message()).is_none());
        let told = one_message(&mut held, Heard::Closed(5, "none".to_owned()));
        assert!(matches!(told, Some(Heard::Closed(5, why)) if why == "none"));
        let told = one_message(&mut None, Heard::Closed(0, String::new()));
        assert!(matches!(told, Some(Heard::Closed(INTERNAL, _))));
    }
}
