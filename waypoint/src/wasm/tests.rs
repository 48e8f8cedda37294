//! Plugins, run by themselves: what the SDK makes of a plugin, and what a plugin may not do.
//! Long because all of it is told in one small world.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};

use super::calls::{Ask, AskGrpc, Called, Heard, Listener};
use super::*;
use crate::model::testing;
use crate::model::wasm::{Code, Settings};

/// Clusters that are asked, and what they answer.
#[derive(Default)]
struct Asked(RefCell<Vec<Ask>>);

impl Calls for Asked {
    fn has(&self, cluster: &str) -> bool {
        cluster == "up"
    }

    fn ask(&self, ask: Ask) -> Pin<Box<dyn Future<Output = Called>>> {
        self.0.borrow_mut().push(ask);
        Box::pin(async {
            Called {
                headers: Some(Map {
                    head: Head::Response(StatusCode::ACCEPTED),
                    ..Map::default()
                }),
                body: bytes::Bytes::from_static(b"heard"),
                trailers: None,
            }
        })
    }

    /// As many messages as were sent, then it is over.
    fn grpc(&self, ask: AskGrpc, heard: Listener) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let messages = ask.messages;
            while let Some(message) = std::future::poll_fn(|cx| messages.poll_next(cx)).await {
                heard(Heard::Message(message.slice(5..)));
            }
            heard(Heard::Closed(0, "well".to_owned()));
        })
    }
}

/// A request of which nothing is known but what plugins say.
#[derive(Default)]
struct Nothing(RefCell<HashMap<Vec<u8>, Vec<u8>>>);

impl Known for Nothing {
    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn kept(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.0.borrow().get(path).cloned()
    }

    fn keep(&self, path: &[u8], value: Vec<u8>) -> bool {
        self.0.borrow_mut().insert(path.to_vec(), value);
        true
    }

    fn received(&self) -> u64 {
        0
    }

    fn sent(&self) -> u64 {
        0
    }
}

/// One worker.
struct World {
    plugins: Plugins,
    asked: Rc<Asked>,
    known: Rc<Nothing>,
}

impl World {
    fn new() -> Self {
        Self {
            plugins: Plugins::default(),
            asked: Rc::default(),
            known: Rc::default(),
        }
    }

    fn begin(&self, plugin: &Arc<Plugin>) -> Result<Stream, Missing> {
        let known = Rc::downgrade(&self.known);
        let asked = self.asked.clone();
        self.plugins.begin(plugin, || asked, known)
    }
}

/// The plugin in tests/plugins/guest.
fn guest() -> Arc<Compiled> {
    static GUEST: OnceLock<Arc<Compiled>> = OnceLock::new();
    let compiled = GUEST.get_or_init(|| {
        let code = std::fs::read(plugins::guest().unwrap()).unwrap();
        Arc::new(compile(&code).unwrap())
    });
    compiled.clone()
}

fn settings(configuration: &str) -> Settings {
    Settings {
        root_id: "root".into(),
        configuration: configuration.as_bytes().into(),
        ..testing::plugin("test", Code::File(Box::default()))
    }
}

fn plugin(settings: Settings) -> Arc<Plugin> {
    let plugin = Plugin::new(settings);
    plugin.module.store(Arc::new(Module::Ready(guest())));
    Arc::new(plugin)
}

fn text(module: &str) -> Arc<Plugin> {
    let compiled = compile(&wat::parse_str(module).unwrap()).unwrap();
    let plugin = Plugin::new(settings(""));
    let ready = Module::Ready(Arc::new(compiled));
    plugin.module.store(Arc::new(ready));
    Arc::new(plugin)
}

fn request(todo: &'static str) -> Map {
    let line = RequestLine {
        method: Method::GET,
        scheme: "http",
        authority: HeaderValue::from_static("a.test"),
        path: Some(PathAndQuery::from_static("/path?query")),
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-do", HeaderValue::from_static(todo));
    headers.insert("x-removed", HeaderValue::from_static("yes"));
    Map {
        head: Head::Request(Box::new(line)),
        headers,
        changed: false,
    }
}

/// What a plugin makes of a request's head.
fn made(stream: &Stream, todo: &'static str) -> HeaderMap {
    let verdict = stream.headers(Way::Up, request(todo), true);
    assert!(matches!(verdict, Verdict::Continue), "{verdict:?}");
    stream.take_headers(Way::Up).unwrap().headers
}

/// A runtime like a worker's.
fn here(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let options = tokio::runtime::LocalOptions::default();
    let runtime = runtime.enable_all().build_local(options).unwrap();
    runtime.block_on(test);
}

#[test]
fn a_plugin_changes_headers_and_keeps_what_it_was_told() {
    here(async {
        let (world, plugin) = (World::new(), plugin(settings("")));
        let stream = world.begin(&plugin).unwrap();
        let headers = made(&stream, "headers");
        assert_eq!(headers["x-set"], "set");
        assert_eq!(headers.get_all("x-added").iter().count(), 2);
        assert_eq!(headers["x-end"], "ended");
        assert!(!headers.contains_key("x-removed"));
        let other = world.begin(&plugin).unwrap();
        let headers = made(&other, "property");
        assert_eq!(headers["x-known"], "/path?query GET a.test property");
        assert_eq!(headers["x-names"], "test root");
        assert_eq!(headers["x-own"], "kept");
        assert_eq!(headers["x-source"], "");
    });
}

#[test]
fn an_answer_and_a_changed_body_are_the_plugins_own() {
    here(async {
        let (world, plugin) = (World::new(), plugin(settings("")));
        let stream = world.begin(&plugin).unwrap();
        let verdict = stream.headers(Way::Up, request("answer"), true);
        let Verdict::Stop(Outcome::Answer(answer)) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.body, "answered by a plugin");
        assert_eq!(
            (&answer.headers["x-by"], answer.grpc),
            (&"plugin".parse().unwrap(), None)
        );
        let stream = world.begin(&plugin).unwrap();
        let _ = stream.headers(Way::Up, request("body-whole"), false);
        let mut body = BytesMut::from(&b"one "[..]);
        let held = stream.body(Way::Up, &mut body, false);
        assert!(matches!(held, Verdict::Pause), "{held:?}");
        body.extend_from_slice(b"two");
        let gone = stream.body(Way::Up, &mut body, true);
        assert!(matches!(gone, Verdict::Continue), "{gone:?}");
        assert_eq!(body, "7 bytes: one two");
    });
}

#[test]
fn a_cluster_is_asked_while_the_request_waits() {
    here(async {
        let (world, plugin) = (World::new(), plugin(settings("up")));
        let stream = world.begin(&plugin).unwrap();
        let verdict = stream.headers(Way::Up, request("ask"), true);
        assert!(matches!(verdict, Verdict::Pause), "{verdict:?}");
        let asked = &world.asked.0;
        let outcome = std::future::poll_fn(|cx| stream.poll(Way::Up, cx)).await;
        assert!(matches!(outcome, Outcome::Continue), "{outcome:?}");
        assert_eq!(asked.borrow()[0].cluster, "up");
        assert_eq!(asked.borrow()[0].timeout, Duration::from_secs(2));
        let headers = stream.take_headers(Way::Up).unwrap().headers;
        assert_eq!(headers["x-asked"], "202");
        let other = world.begin(&plugin).unwrap();
        assert_eq!(made(&other, "ask-nobody")["x-asked"], "refused");
        // What is answered when nobody waits any more reaches nobody.
        let gone = world.begin(&plugin).unwrap();
        let _ = gone.headers(Way::Up, request("ask"), true);
        drop(gone);
        tokio::task::yield_now().await;
        assert_eq!(
            made(&world.begin(&plugin).unwrap(), "headers")["x-set"],
            "set"
        );
    });
}

#[test]
fn a_plugin_that_fails_is_called_no_more() {
    here(async {
        let (world, plugin) = (World::new(), plugin(settings("")));
        let waits = world.begin(&plugin).unwrap();
        let stream = world.begin(&plugin).unwrap();
        let verdict = stream.headers(Way::Up, request("trap"), true);
        assert!(
            matches!(verdict, Verdict::Stop(Outcome::Failed)),
            "{verdict:?}"
        );
        let outcome = std::future::poll_fn(|cx| waits.poll(Way::Up, cx)).await;
        assert!(matches!(outcome, Outcome::Failed), "{outcome:?}");
        assert_eq!(world.begin(&plugin).unwrap_err(), Missing::Failed);
    });
}

#[test]
fn a_plugin_that_may_be_started_again_is_after_a_pause() {
    here(async {
        let reload = OnFailure::Reload(Duration::ZERO, Duration::ZERO);
        let again = Settings {
            failure: reload,
            ..settings("")
        };
        let (world, plugin) = (World::new(), plugin(again));
        let stream = world.begin(&plugin).unwrap();
        let _ = stream.headers(Way::Up, request("trap"), true);
        let stream = world.begin(&plugin).unwrap();
        assert_eq!(made(&stream, "headers")["x-set"], "set");
        let hour = Duration::from_secs(3600);
        let later = Settings {
            failure: OnFailure::Reload(hour, hour),
            ..settings("")
        };
        let plugin = super::tests::plugin(later);
        let stream = world.begin(&plugin).unwrap();
        let _ = stream.headers(Way::Up, request("trap"), true);
        assert_eq!(world.begin(&plugin).unwrap_err(), Missing::Failed);
    });
}

#[test]
fn no_plugin_holds_a_worker_or_takes_its_memory() {
    here(async {
        for todo in ["loop", "grow"] {
            let (world, plugin) = (World::new(), plugin(settings("")));
            let stream = world.begin(&plugin).unwrap();
            let began = Instant::now();
            let verdict = stream.headers(Way::Up, request(todo), true);
            assert!(
                matches!(verdict, Verdict::Stop(Outcome::Failed)),
                "{todo}: {verdict:?}"
            );
            assert!(began.elapsed() < Duration::from_secs(20), "{todo}");
        }
    });
}

/// Waits until no plugin runs any more, which nobody has to ask for.
async fn forgotten(world: &World) {
    let none = async {
        while !world.plugins.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(SWEEP * 5, none).await;
    waited.expect("a plugin outlives its configuration");
}

#[test]
fn what_plugins_share_outlives_them_and_counts_on() {
    here(async {
        let shared = Shared::default();
        for _ in 0..2 {
            let world = World {
                plugins: Plugins::new(shared.clone()),
                ..World::new()
            };
            let plugin = plugin(settings(""));
            let stream = world.begin(&plugin).unwrap();
            assert_eq!(made(&stream, "shared")["x-shared"], "kept");
            assert_eq!(made(&stream, "metric")["x-metric"], "counted");
            // What it writes down at the end.
            let _ = made(&stream, "log");
            drop(stream);
            drop(plugin);
            forgotten(&world).await;
        }
        let (seen, _) = shared.data.get("", b"seen").unwrap();
        assert_eq!(&*seen, b"..");
        assert_eq!(&*shared.data.get("", b"logged").unwrap().0, b"..");
        let mut told = String::new();
        shared.metrics.encode(&mut told);
        assert!(told.contains("\nguest_seen 4\n"), "{told}");
    });
}

#[test]
fn a_plugin_is_woken_as_often_as_it_wants() {
    here(async {
        let (world, plugin) = (World::new(), plugin(settings("tick")));
        let stream = world.begin(&plugin).unwrap();
        let ticked = async {
            while made(&stream, "ticks")["x-ticks"].is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, ticked).await.unwrap();
    });
}

#[test]
fn a_plugin_that_refuses_its_configuration_is_none() {
    here(async {
        let world = World::new();
        let plugin = plugin(settings("refuse"));
        assert_eq!(world.begin(&plugin).unwrap_err(), Missing::Failed);
        let coming = Arc::new(Plugin::new(settings("")));
        assert_eq!(world.begin(&coming).unwrap_err(), Missing::Coming);
        let failed = Module::Failed("gone".into());
        coming.module.store(Arc::new(failed));
        assert_eq!(world.begin(&coming).unwrap_err(), Missing::NoCode);
    });
}

#[test]
fn a_function_that_it_may_not_call_fails_and_others_do_not() {
    here(async {
        let names = [
            "proxy_on_context_create",
            "proxy_on_vm_start",
            "proxy_on_configure",
            "proxy_on_request_headers",
            "proxy_get_header_map_value",
            "proxy_replace_header_map_value",
            "proxy_get_buffer_bytes",
            "proxy_send_local_response",
        ];
        let allowed = names.into_iter().map(Into::into).collect();
        let allowed = Settings {
            allowed: Some(allowed),
            ..settings("up")
        };
        let (world, plugin) = (World::new(), plugin(allowed));
        let stream = world.begin(&plugin).unwrap();
        assert_eq!(made(&stream, "path").len(), 2);
        // It may not ask a cluster, and says so.
        let verdict = stream.headers(Way::Up, request("ask"), true);
        let Verdict::Stop(Outcome::Answer(answer)) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(answer.body, "no such cluster");
        assert!(world.asked.0.borrow().is_empty());
        // It isn't called about bodies.
        let mut body = BytesMut::from(&b"body"[..]);
        let _ = stream.headers(Way::Up, request("body"), false);
        let _ = stream.body(Way::Up, &mut body, true);
        assert_eq!(body, "body");
    });
}

#[test]
fn an_older_version_is_called_by_its_own_rules() {
    here(async {
        // 0.1.0: a head's call has two numbers, and has memory from `malloc`.
        let plugin = text(
            r#"(module
                (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
                (memory (export "memory") 1)
                (data (i32.const 8) "x-old")
                (func (export "proxy_abi_version_0_1_0"))
                (func (export "malloc") (param i32) (result i32) (i32.const 1024))
                (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
                    (drop (call $log (i32.const 2) (i32.const 8) (i32.const 5)))
                    (i32.const 1)))"#,
        );
        let world = World::new();
        let stream = world.begin(&plugin).unwrap();
        let verdict = stream.headers(Way::Up, request(""), true);
        assert!(matches!(verdict, Verdict::Pause), "{verdict:?}");
    });
}

#[test]
fn memory_that_is_not_the_plugins_is_never_touched() {
    here(async {
        // It answers with what each call says of an address beyond its memory.
        let plugin = text(
            r#"(module
                (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
                (import "env" "proxy_get_current_time_nanoseconds"
                    (func $now (param i32) (result i32)))
                (import "wasi_snapshot_preview1" "random_get"
                    (func $random (param i32 i32) (result i32)))
                (memory (export "memory") 1)
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (if (i32.ne (call $log (i32.const 2) (i32.const -1) (i32.const 5)) (i32.const 6))
                        (then unreachable))
                    (if (i32.ne (call $log (i32.const 2) (i32.const 1) (i32.const -1)) (i32.const 6))
                        (then unreachable))
                    (if (i32.ne (call $now (i32.const 65529)) (i32.const 6))
                        (then unreachable))
                    (if (i32.ne (call $random (i32.const 65530) (i32.const 7)) (i32.const 21))
                        (then unreachable))
                    (i32.const 0)))"#,
        );
        let world = World::new();
        let stream = world.begin(&plugin).unwrap();
        let verdict = stream.headers(Way::Up, request(""), true);
        assert!(matches!(verdict, Verdict::Continue), "{verdict:?}");
    });
}

#[test]
fn a_text_of_many_parts_is_no_more_than_a_line() {
    here(async {
        // It prints a thousand times all of its memory at once, and fails if more than a line of that
        // was taken.
        let plugin = text(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_write"
                    (func $write (param i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 16)
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (local $part i32)
                    (loop $parts
                        (i32.store offset=4
                            (i32.mul (local.get $part) (i32.const 8))
                            (i32.const 1048576))
                        (local.set $part (i32.add (local.get $part) (i32.const 1)))
                        (br_if $parts (i32.lt_u (local.get $part) (i32.const 1000))))
                    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1000) (i32.const 16384))
                        (then unreachable))
                    (if (i32.ne (i32.load (i32.const 16384)) (i32.const 16384))
                        (then unreachable))
                    (i32.const 0)))"#,
        );
        let world = World::new();
        let stream = world.begin(&plugin).unwrap();
        let verdict = stream.headers(Way::Up, request(""), true);
        assert!(matches!(verdict, Verdict::Continue), "{verdict:?}");
    });
}

#[test]
fn what_is_no_plugin_is_refused_with_the_reason() {
    let told = |code: &[u8]| compile(code).unwrap_err();
    assert!(told(b"#!/bin/sh").contains("no Wasm module"));
    assert!(told(b"\0asm\x01\0\0\0").contains("proxy_abi_version"));
    let module = |text: &str| wat::parse_str(text).unwrap();
    let no_memory = module("(module (func (export \"proxy_abi_version_0_2_0\")))");
    assert!(told(&no_memory).contains("no memory"));
    let wants = module(
        r#"(module (import "env" "proxy_make_coffee" (func))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1")))"#,
    );
    assert!(
        told(&wants).contains("proxy_make_coffee"),
        "{}",
        told(&wants)
    );
}

#[test]
fn it_calls_and_streams_by_grpc_while_the_request_waits() {
    here(async {
        let (world, plugin) = (World::new(), plugin(settings("up")));
        for (how, told) in [
            ("grpc", "0 asked"),
            ("grpc-stream", "message:one message:two closed:0:0"),
        ] {
            let stream = world.begin(&plugin).unwrap();
            let verdict = stream.headers(Way::Up, request(how), true);
            assert!(matches!(verdict, Verdict::Pause), "{how}: {verdict:?}");
            let outcome = std::future::poll_fn(|cx| stream.poll(Way::Up, cx)).await;
            assert!(matches!(outcome, Outcome::Continue), "{how}: {outcome:?}");
            let headers = stream.take_headers(Way::Up).unwrap().headers;
            assert_eq!(headers["x-told"], told);
        }
        let other = world.begin(&plugin).unwrap();
        assert_eq!(made(&other, "grpc-nobody")["x-told"], "ParseFailure");
        let other = world.begin(&plugin).unwrap();
        assert_eq!(made(&other, "grpc-cancel")["x-told"], "cancelled");
    });
}
