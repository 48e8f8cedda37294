//! Calls and streams of gRPC that the plugin makes.

use std::time::Duration;

use proxy_wasm::traits::{Context as _, HttpContext as _};
use proxy_wasm::types::Action;

use crate::Stream;

impl Stream {
    /// Makes a call or stream of gRPC, which answers by `x-grpc`, and waits where something comes of it.
    pub(crate) fn by_grpc(&mut self) -> Action {
        let header = |name| self.get_http_request_header(name).unwrap_or_default();
        let (case, script) = (header("x-case"), header("x-grpc"));
        let metadata: Vec<(&str, &[u8])> =
            vec![("x-case", case.as_bytes()), ("x-script", script.as_bytes())];
        // A cluster by its name, or a `GrpcService` of Envoy's that has a host beside it.
        let cluster = match self.todo.as_str() {
            "grpc-nobody" => "nobody".to_owned(),
            "grpc-cancel" => self.cluster.clone(),
            _ => field(&(field(&self.cluster, 1) + &field("asked.test", 2)), 1),
        };
        let begun = match self.todo.as_str() {
            "grpc" | "grpc-nobody" => {
                let time = Duration::from_millis(900);
                self.dispatch_grpc_call(&cluster, "a.B", "C", metadata, Some(b"asked"), time)
            }
            _ => self.open_grpc_stream(&cluster, "a.B", "C", metadata),
        };
        match (begun, self.todo.as_str()) {
            (Err(status), _) => {
                let told = format!("{status:?}");
                self.set_http_request_header("x-told", Some(&told));
                Action::Continue
            }
            (Ok(token), "grpc-stream") => {
                self.send_grpc_stream_message(token, Some(b"one"), false);
                self.send_grpc_stream_message(token, Some(b"two"), true);
                Action::Pause
            }
            (Ok(token), "grpc-cancel") => {
                self.cancel_grpc_stream(token);
                self.set_http_request_header("x-told", Some("cancelled"));
                Action::Continue
            }
            (Ok(_), _) => Action::Pause,
        }
    }

    pub(crate) fn told(&mut self) {
        let told = std::mem::take(&mut self.heard);
        self.set_http_request_header("x-told", Some(told.trim_end()));
        self.resume_http_request();
    }
}

/// A text in a message of protobuf, shorter than 128 bytes.
fn field(text: &str, number: u8) -> String {
    let head = [number << 3 | 2, text.len() as u8];
    head.map(char::from).iter().collect::<String>() + text
}
