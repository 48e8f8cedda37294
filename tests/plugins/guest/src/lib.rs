//! A plugin for tests: it does what the header `x-do` of a request says, and of its answer what
//! `x-do-answer` says. What it is configured with is the cluster that it asks, and what it says of
//! itself; `refuse` as a configuration is refused.

mod grpc;

use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    cluster: String,
    ticks: u32,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        self.get_vm_configuration().as_deref() != Some(b"refuse")
    }

    fn on_configure(&mut self, _: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        self.cluster = String::from_utf8_lossy(&configuration).into_owned();
        if self.cluster == "tick" {
            self.set_tick_period(Duration::from_millis(5));
        }
        self.cluster != "refuse"
    }

    fn on_tick(&mut self) {
        self.ticks += 1;
        let ticks = self.ticks.to_string();
        // Set anew each time: nobody else does.
        let _ = self.set_shared_data("ticks", Some(ticks.as_bytes()), None);
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream {
            cluster: self.cluster.clone(),
            todo: String::new(),
            answer: String::new(),
            look: String::new(),
            heard: String::new(),
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    cluster: String,
    todo: String,
    answer: String,
    look: String,
    heard: String,
}

impl Stream {
    fn ask(&self, path: &str) -> bool {
        let case = self.get_http_request_header("x-case").unwrap_or_default();
        let headers = vec![
            (":method", "GET"),
            (":path", path),
            (":authority", "asked.test"),
            ("x-case", case.as_str()),
        ];
        let time = Duration::from_secs(2);
        let asked = self.dispatch_http_call(&self.cluster, headers, None, vec![], time);
        asked.is_ok()
    }

    fn text(&self, path: &[&str]) -> String {
        let value = self.get_property(path.to_vec()).unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    }

    /// Properties by their paths, with spaces between them and `|` in them.
    fn looked(&self) -> String {
        let told =
            self.look
                .split(' ')
                .map(|path| match self.get_property(path.split('|').collect()) {
                    None => "-".to_owned(),
                    Some(bytes) if bytes.is_empty() => "''".to_owned(),
                    Some(bytes) if bytes.iter().all(u8::is_ascii_graphic) => {
                        String::from_utf8_lossy(&bytes).into_owned()
                    }
                    Some(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                });
        told.collect::<Vec<_>>().join(" ")
    }

    fn number(&self, path: &[&str]) -> i64 {
        let value = self.get_property(path.to_vec()).unwrap_or_default();
        value.try_into().map_or(-1, i64::from_le_bytes)
    }
}

impl Context for Stream {
    fn on_grpc_call_response(&mut self, _: u32, status: u32, size: usize) {
        let answer = match size {
            0 => Vec::new(),
            size => self
                .get_grpc_call_response_body(0, size)
                .unwrap_or_default(),
        };
        self.heard = format!("{status} {}", String::from_utf8_lossy(&answer));
        self.told();
    }

    fn on_grpc_stream_initial_metadata(&mut self, _: u32, _: u32) {
        let value = self.get_grpc_stream_initial_metadata_value("x-before");
        let value = value.unwrap_or_default();
        self.heard += &format!("head:{} ", String::from_utf8_lossy(&value));
    }

    fn on_grpc_stream_message(&mut self, _: u32, size: usize) {
        let message = self.get_grpc_stream_message(0, size).unwrap_or_default();
        self.heard += &format!("message:{} ", String::from_utf8_lossy(&message));
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _: u32, _: u32) {
        let value = self.get_grpc_stream_trailing_metadata_value("x-after");
        let value = value.unwrap_or_default();
        self.heard += &format!("trailers:{} ", String::from_utf8_lossy(&value));
    }

    fn on_grpc_stream_close(&mut self, _: u32, status: u32) {
        let (same, why) = self.get_grpc_status();
        self.heard += &format!("closed:{status}:{same}");
        self.set_http_request_header("x-why", why.as_deref());
        self.told();
    }

    fn on_http_call_response(&mut self, _: u32, headers: usize, body: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        let status = status.unwrap_or_else(|| "none".to_owned());
        let text = self
            .get_http_call_response_body(0, body)
            .unwrap_or_default();
        match self.todo.as_str() {
            "ask-and-deny" => {
                let body = format!("asked: {status}, {} bytes", text.len());
                self.send_http_response(401, vec![("x-asked", &status)], Some(body.as_bytes()));
            }
            _ => {
                let some = if headers > 0 {
                    "answered"
                } else {
                    "unanswered"
                };
                self.set_http_request_header("x-asked", Some(&status));
                self.set_http_request_header("x-heard", Some(some));
                self.resume_http_request();
            }
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        self.todo = self.get_http_request_header("x-do").unwrap_or_default();
        self.answer = self
            .get_http_request_header("x-do-answer")
            .unwrap_or_default();
        self.look = self.get_http_request_header("x-look").unwrap_or_default();
        match self.todo.as_str() {
            "headers" => {
                self.set_http_request_header("x-set", Some("set"));
                self.add_http_request_header("x-added", "1");
                self.add_http_request_header("x-added", "2");
                self.set_http_request_header("x-removed", None);
                let end = if end { "ended" } else { "open" };
                self.set_http_request_header("x-end", Some(end));
            }
            "path" => self.set_http_request_header(":path", Some("/rewritten?by=plugin")),
            "host" => self.set_http_request_header(":authority", Some("other.test")),
            "method" => self.set_http_request_header(":method", Some("PUT")),
            "answer" => {
                let headers = vec![("x-by", "plugin"), ("content-type", "text/html")];
                self.send_http_response(418, headers, Some(b"answered by a plugin"));
                return Action::Pause;
            }
            "answer-empty" => {
                self.send_http_response(204, vec![], None);
                return Action::Pause;
            }
            "answer-and-continue" => self.send_http_response(403, vec![], Some(b"no")),
            "ask" | "ask-and-deny" => {
                return match self.ask("/asked") {
                    true => Action::Pause,
                    false => {
                        self.send_http_response(500, vec![], Some(b"no such cluster"));
                        Action::Pause
                    }
                };
            }
            "grpc" | "grpc-stream" | "grpc-nobody" | "grpc-cancel" => return self.by_grpc(),
            "ask-nobody" => {
                let headers = vec![(":method", "GET"), (":path", "/"), (":authority", "a")];
                let time = Duration::from_secs(1);
                let asked = self.dispatch_http_call("nobody", headers, None, vec![], time);
                let told = if asked.is_ok() { "asked" } else { "refused" };
                self.set_http_request_header("x-asked", Some(told));
            }
            "trap" => panic!("as it was told"),
            "loop" => loop {
                std::hint::black_box(());
            },
            "grow" => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&all);
                }
            }
            "property" => {
                let told = format!(
                    "{} {} {} {}",
                    self.text(&["request", "path"]),
                    self.text(&["request", "method"]),
                    self.text(&["request", "host"]),
                    self.text(&["request", "headers", "x-do"]),
                );
                self.set_http_request_header("x-known", Some(&told));
                let names = format!(
                    "{} {}",
                    self.text(&["plugin_name"]),
                    self.text(&["plugin_root_id"]),
                );
                self.set_http_request_header("x-names", Some(&names));
                let source = self.text(&["source", "address"]);
                let host = source.rsplit_once(':').map_or("", |(host, _)| host);
                self.set_http_request_header("x-source", Some(host));
                let port = self.number(&["destination", "port"]);
                let some = if port > 0 { "some" } else { "none" };
                self.set_http_request_header("x-port", Some(some));
                self.set_property(vec!["own"], Some(b"kept"));
                self.set_http_request_header("x-own", Some(&self.text(&["own"])));
            }
            "look" => self.set_http_request_header("x-looked", Some(&self.looked())),
            "keep" => self.set_property(vec!["own"], Some(b"once")),
            "keep-twice" => {
                self.set_property(vec!["own"], Some(b"once"));
                self.set_property(vec!["own"], Some(b"twice"));
            }
            "metric" => {
                let counter = hostcalls::define_metric(MetricType::Counter, "guest_seen");
                if let Ok(counter) = counter {
                    let _ = hostcalls::increment_metric(counter, 2);
                    let value = hostcalls::get_metric(counter).unwrap_or_default();
                    let some = if value >= 2 { "counted" } else { "lost" };
                    self.set_http_request_header("x-metric", Some(some));
                }
            }
            "shared" => {
                let (value, version) = self.get_shared_data("seen");
                let before = value.map_or(0, |value| value.len());
                let more = vec![b'.'; before + 1];
                let kept = self.set_shared_data("seen", Some(&more), version);
                let told = if kept.is_ok() { "kept" } else { "lost" };
                self.set_http_request_header("x-shared", Some(told));
            }
            "ticks" => {
                let (value, _) = self.get_shared_data("ticks");
                let ticks = value.unwrap_or_default();
                let ticks = String::from_utf8_lossy(&ticks).into_owned();
                self.set_http_request_header("x-ticks", Some(&ticks));
            }
            "body" | "body-whole" | "body-answer" => {
                self.set_http_request_header("content-length", None);
            }
            "head-after-body" | "head-and-answer" if !end => return Action::Pause,
            _ => {}
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        match self.todo.as_str() {
            "body" => {
                let body = self.get_http_request_body(0, size).unwrap_or_default();
                self.set_http_request_body(0, size, &body.to_ascii_uppercase());
            }
            "body-whole" => {
                if !end {
                    return Action::Pause;
                }
                let body = self.get_http_request_body(0, size).unwrap_or_default();
                let new = format!("{} bytes: {}", size, String::from_utf8_lossy(&body));
                self.set_http_request_body(0, size, new.as_bytes());
            }
            "body-answer" if end => {
                self.send_http_response(400, vec![], Some(b"not this body"));
                return Action::Pause;
            }
            "body-trap" => panic!("as it was told"),
            "head-after-body" => {
                if !end {
                    return Action::Pause;
                }
                self.set_http_request_header("x-body", Some(&size.to_string()));
            }
            "head-and-answer" => {
                self.send_http_response(403, vec![], Some(b"by its body"));
                return Action::Pause;
            }
            "body-held" if !end => return Action::Pause,
            _ => {}
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end: bool) -> Action {
        match self.answer.as_str() {
            "head-after-body" if !end => return Action::Pause,
            "headers" => {
                self.set_http_response_header("x-answer-set", Some("set"));
                self.set_http_response_header("x-answer-removed", None);
            }
            "status" => self.set_http_response_header(":status", Some("299")),
            "configured" => self.set_http_response_header("x-configured", Some(&self.cluster)),
            "answer" => {
                self.send_http_response(502, vec![("x-by", "plugin")], Some(b"not this answer"));
                return Action::Pause;
            }
            "trap" => panic!("as it was told"),
            "look" => self.set_http_response_header("x-looked", Some(&self.looked())),
            "code" => {
                let code = self.number(&["response", "code"]).to_string();
                self.set_http_response_header("x-code", Some(&code));
            }
            "body" | "body-whole" => self.set_http_response_header("content-length", None),
            _ => {}
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        match self.answer.as_str() {
            "head-after-body" => {
                if !end {
                    return Action::Pause;
                }
                self.set_http_response_header("x-body", Some(&size.to_string()));
            }
            "body" => {
                let body = self.get_http_response_body(0, size).unwrap_or_default();
                self.set_http_response_body(0, size, &body.to_ascii_uppercase());
            }
            "body-whole" => {
                if !end {
                    return Action::Pause;
                }
                let body = self.get_http_response_body(0, size).unwrap_or_default();
                let new = format!("{} bytes: {}", size, String::from_utf8_lossy(&body));
                self.set_http_response_body(0, size, new.as_bytes());
            }
            _ => {}
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if self.todo == "log" {
            let (value, _) = self.get_shared_data("logged");
            let more = vec![b'.'; value.map_or(0, |value| value.len()) + 1];
            // Another stream may have been faster; the test asks one after another.
            let _ = self.set_shared_data("logged", Some(&more), None);
            proxy_wasm::hostcalls::log(LogLevel::Info, "a stream is over").ok();
        }
    }
}
