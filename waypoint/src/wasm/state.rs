//! What a running plugin's calls work on: the request whose turn it is, with its headers and bodies as
//! far as they are there now, and what the plugin asked to be done once its call has ended.

use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use wasmtime::{Func, Memory, StoreLimits};

use super::calls::{Ask, AskGrpc, Called, Calls, Open};
use super::map::Map;
use super::shared::Shared;
use crate::model::wasm::Settings;

/// The way of a stream: up with the request, or down with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The request's.
    Up,
    /// The answer's.
    Down,
}

/// What is known of a stream beyond its headers: a property by its path, and what is written down.
pub trait Known {
    /// The bytes of a property, as Envoy writes them; none where it isn't known.
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
    /// What a plugin wrote down under this path.
    fn kept(&self, path: &[u8]) -> Option<Vec<u8>>;
    /// Writes a value down, for every plugin of the stream; false where nothing more may be.
    fn keep(&self, path: &[u8], value: Vec<u8>) -> bool;
    /// Bytes of the request's body that came so far.
    fn received(&self) -> u64;
    /// Bytes of the answer's body that went so far.
    fn sent(&self) -> u64;
}

/// What becomes of a stream that waited.
#[derive(Debug)]
pub enum Outcome {
    /// It goes on.
    Continue,
    /// The plugin answers it.
    Answer(Answer),
    /// It is broken off.
    Close,
    /// The plugin failed.
    Failed,
}

/// An answer that a plugin makes.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: String,
    /// The body.
    pub body: Bytes,
    /// Further headers.
    pub headers: HeaderMap,
    /// gRPC's status; none: from the status.
    pub grpc: Option<u32>,
}

/// One message of a stream.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) headers: Option<Map>,
    pub(super) body: BytesMut,
    /// The body is there: a call about it runs.
    pub(super) has_body: bool,
    pub(super) trailers: Option<Map>,
    /// The plugin said that it may go on.
    pub(super) resumed: bool,
    pub(super) waker: Option<Waker>,
}

/// A stream that a plugin knows.
pub(super) struct Stream {
    pub(super) known: Weak<dyn Known>,
    pub(super) up: Message,
    pub(super) down: Message,
    pub(super) answer: Option<Answer>,
    pub(super) closed: bool,
}

/// What belongs to one running plugin.
pub(super) struct State {
    pub(super) settings: Arc<Settings>,
    pub(super) limits: StoreLimits,
    pub(super) memory: Option<Memory>,
    pub(super) allocate: Option<Func>,
    pub(super) shared: Shared,
    pub(super) calls: Rc<dyn Calls>,
    /// The context whose turn it is.
    pub(super) context: u32,
    pub(super) streams: HashMap<u32, Stream>,
    /// What it has asked clusters for.
    pub(super) open: Open,
    /// Requests to clusters that the plugin asked for; made once its call has ended.
    pub(super) asks: Vec<Ask>,
    /// Calls and streams of gRPC, likewise.
    pub(super) asks_grpc: Vec<AskGrpc>,
    /// The answer that the plugin is told of now.
    pub(super) called: Option<Called>,
    /// What it is told of now that came before or after messages of gRPC.
    pub(super) told: [Option<Map>; 2],
    /// The message that it is told of now.
    pub(super) message: Option<Bytes>,
    /// How what it is told of now ended.
    pub(super) status: (u32, String),
    /// How often it wants to be woken, where that has changed.
    pub(super) tick: Option<Duration>,
    /// Tells it that there is something in a queue of its own.
    pub(super) queues: mpsc::Sender<u32>,
    /// It is being started: nothing is written to it yet.
    pub(super) line: Vec<u8>,
}

impl State {
    /// The stream whose turn it is; none while it is nobody's.
    pub(super) fn stream(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.context)
    }
}

impl Stream {
    pub(super) fn new(known: Weak<dyn Known>) -> Self {
        Self {
            known,
            up: Message::default(),
            down: Message::default(),
            answer: None,
            closed: false,
        }
    }

    pub(super) fn message(&mut self, way: Way) -> &mut Message {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// What becomes of it, where that is known. Whoever asked last is woken.
    pub(super) fn poll(&mut self, way: Way, cx: &Context<'_>) -> Poll<Outcome> {
        if let Some(answer) = self.answer.take() {
            return Poll::Ready(Outcome::Answer(answer));
        }
        if self.closed {
            return Poll::Ready(Outcome::Close);
        }
        let message = self.message(way);
        if std::mem::take(&mut message.resumed) {
            return Poll::Ready(Outcome::Continue);
        }
        message.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whoever waits is to look again.
    pub(super) fn wake(&mut self) {
        for message in [&mut self.up, &mut self.down] {
            if let Some(waker) = message.waker.take() {
                waker.wake();
            }
        }
    }
}
