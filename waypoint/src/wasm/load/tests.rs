//! Code from a server and from a registry, that fail, move and change.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use super::*;
use crate::model::testing;
use crate::model::wasm::PullSecret;

/// A server that answers by path, one answer after another, the last again and again.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    answers: HashMap<String, VecDeque<(u16, String, Vec<u8>)>>,
    asked: Vec<(String, Option<String>)>,
}

impl Server {
    fn start() -> (Self, SocketAddr) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let told = server.0.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let line = lines.next().unwrap().unwrap();
                let path = line.split(' ').nth(1).unwrap().to_owned();
                let mut word = None;
                for line in lines.map_while(Result::ok) {
                    if line.is_empty() {
                        break;
                    }
                    if let Some((name, value)) = line.split_once(": ")
                        && name.eq_ignore_ascii_case("authorization")
                    {
                        word = Some(value.to_owned());
                    }
                }
                let mut told = told.lock();
                told.asked.push((path.clone(), word));
                let all = told.answers.get_mut(&path);
                let (status, headers, body) = match all {
                    Some(all) if all.len() > 1 => all.pop_front().unwrap(),
                    Some(all) => all[0].clone(),
                    None => (404, String::new(), Vec::new()),
                };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n");
                // Whoever has gone away isn't waited for.
                let _ = stream.write_all(&[head.into_bytes(), body].concat());
            }
        });
        (server, at)
    }

    fn says(&self, path: &str, status: u16, headers: &str, body: &[u8]) {
        let mut told = self.0.lock();
        let answers = told.answers.entry(path.to_owned()).or_default();
        answers.push_back((status, headers.to_owned(), body.to_vec()));
    }

    fn asked(&self, path: &str) -> usize {
        self.0
            .lock()
            .asked
            .iter()
            .filter(|(it, _)| it == path)
            .count()
    }
}

/// A module that is told from others by this text.
fn module(text: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 1) (data (i32.const 0) "{text}")
            (func (export "proxy_abi_version_0_2_1")))"#
    );
    wat::parse_str(text).unwrap()
}

fn sum(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn of(uri: String) -> Remote {
    Remote {
        uri: uri.into(),
        sha256: None,
        timeout: Duration::from_secs(20),
        secret: None,
        again: Pull::Unspecified,
        version: "1".into(),
    }
}

fn plugin(remote: &Remote) -> Settings {
    testing::plugin("plugin", Code::Remote(remote.clone()))
}

fn loader(at: SocketAddr) -> Loader {
    Loader::new(vec![at.to_string().into()])
}

#[tokio::test]
async fn a_module_comes_over_http_after_failures_and_a_redirect() {
    let (server, at) = Server::start();
    let code = module("a");
    server.says("/a", 503, "", b"");
    server.says("/a", 302, "location: /b\r\n", b"");
    server.says("/b", 200, "", &code);
    let loader = loader(at);
    let mut remote = of(format!("http://{at}/a"));
    remote.sha256 = Some(sum(&code).into());
    let first = loader.load(&plugin(&remote)).await.unwrap();
    assert_eq!((server.asked("/a"), server.asked("/b")), (2, 1));
    // It is there already, and compiled once.
    let again = loader.load(&plugin(&remote)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(server.asked("/a"), 2);
}

#[tokio::test]
async fn what_is_not_what_it_must_be_is_refused_at_once() {
    let (server, at) = Server::start();
    server.says("/a", 200, "", &module("a"));
    server.says("/page", 200, "", b"<html>");
    // Nothing would say whether this is the layer that was meant.
    let unchecked = br#"{"layers": [{"digest": "sha512:0"}]}"#;
    server.says("/v2/a/manifests/v1", 200, "", unchecked);
    server.says("/v2/a/blobs/sha512:0", 200, "", &module("a"));
    let loader = loader(at);
    let mut other = of(format!("http://{at}/a"));
    other.sha256 = Some(sum(b"other").into());
    for (remote, told) in [
        (other, "and must have"),
        (of(format!("http://{at}/page")), "no Wasm module"),
        (of(format!("http://{at}/nothing")), "404"),
        (of(format!("oci://{at}/nothing:v1")), "404"),
        (of(format!("oci://{at}/a:v1")), "none of SHA-256"),
    ] {
        let error = loader.load(&plugin(&remote)).await.unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    assert_eq!(server.asked("/a"), 1);
    // A host of the proxy's own that nobody named isn't asked at all.
    let error = Loader::default()
        .load(&plugin(&of(format!("http://{at}/a"))))
        .await;
    assert!(error.unwrap_err().contains("own host"));
    assert_eq!(server.asked("/a"), 1);
}

#[tokio::test]
async fn an_image_is_pulled_with_its_secret_and_again_where_it_should_be() {
    let (server, at) = Server::start();
    let code = module("a");
    let layer = format!("sha256:{}", sum(&code));
    let manifest = serde_json::json!({"layers": [
        {"mediaType": "application/vnd.module.wasm.config.v1+json", "digest": "sha256:0"},
        {"mediaType": "application/vnd.module.wasm.content.layer.v1+wasm", "digest": layer},
    ]});
    let manifest = manifest.to_string().into_bytes();
    let asks = format!(
        "www-authenticate: Bearer realm=\"http://{at}/token\",service=\"s\",scope=\"a:pull\"\r\n"
    );
    let (place, blob) = (
        "/v2/a/guard/manifests/latest",
        format!("/v2/a/guard/blobs/{layer}"),
    );
    server.says(place, 401, &asks, b"");
    server.says(place, 200, "", &manifest);
    server.says(
        "/token?service=s&scope=a%3Apull",
        200,
        "",
        br#"{"token":"given"}"#,
    );
    server.says(&blob, 200, "", &code);
    let loader = loader(at);
    let mut remote = of(format!("oci://{at}/a/guard"));
    let secret =
        serde_json::json!({"auths": {at.to_string(): {"username": "me", "password": "p"}}});
    remote.secret = Some(PullSecret(secret.to_string().into()));
    let first = loader.load(&plugin(&remote)).await.unwrap();
    {
        let told = server.0.lock();
        let word = |path: &str| {
            let mut asked = told.asked.iter().rev();
            asked
                .find(|(it, _)| it == path)
                .and_then(|(_, word)| word.clone())
        };
        assert_eq!(
            word("/token?service=s&scope=a%3Apull").unwrap(),
            "Basic bWU6cA=="
        );
        assert_eq!(word(place).unwrap(), "Bearer given");
        assert_eq!(word(&blob).unwrap(), "Bearer given");
    }
    let pulls = || server.asked(place);
    assert_eq!(pulls(), 2);
    // `latest` is pulled again only for another version of the object.
    let same = loader.load(&plugin(&remote)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &same) && pulls() == 2);
    remote.version = "2".into();
    loader.load(&plugin(&remote)).await.unwrap();
    assert_eq!(pulls(), 3);
    remote.version = "3".into();
    remote.again = Pull::IfNotPresent;
    loader.load(&plugin(&remote)).await.unwrap();
    remote.sha256 = Some(sum(&manifest).into());
    loader.load(&plugin(&remote)).await.unwrap();
    assert_eq!(pulls(), 3);
    remote.sha256 = Some(sum(b"other").into());
    let error = loader.load(&plugin(&remote)).await.unwrap_err();
    assert!(error.contains("the image has the digest"), "{error}");
}
