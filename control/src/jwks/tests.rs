//! Keys over real sockets: what is taken, what is refused, and that good keys outlive a failure.

use mesh::fetch::Reach;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::fetch::FetchError;
use super::*;

const KEYS: &str = r#"{"keys":[]}"#;

fn fetcher(reach: Reach) -> Fetcher {
    Fetcher::new(std::path::Path::new("/nowhere"), reach)
}

/// Answers requests by their path until it is dropped; gives its address.
async fn serve(answer: impl Fn(&str, &str) -> String + Send + 'static) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    let own = base.clone();
    task.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let text = answer(path, &own);
            // A client that has read enough may be gone.
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (base, task)
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn answers(path: &str, base: &str) -> String {
    match path {
        "/keys" => ok(KEYS),
        "/issuer/.well-known/openid-configuration" => {
            ok(&format!(r#"{{"jwks_uri":"{base}/keys"}}"#))
        }
        "/moved" => {
            format!("HTTP/1.1 302 Found\r\nlocation: {base}/keys\r\ncontent-length: 0\r\n\r\n")
        }
        "/round" => {
            format!("HTTP/1.1 302 Found\r\nlocation: {base}/round\r\ncontent-length: 0\r\n\r\n")
        }
        "/large" => format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
            2 << 20,
            "x".repeat(2 << 20)
        ),
        "/short" => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned(),
        "/words" => ok("no keys"),
        "/odd" => ok(r#"{"key":[]}"#),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    }
}

#[tokio::test]
async fn keys_are_taken_from_where_they_are_said_to_be_or_found() {
    let (base, _server) = serve(answers).await;
    let fetcher = fetcher(Reach::Everywhere);
    for source in [
        Source {
            issuer: "any".to_owned(),
            uri: format!("{base}/keys"),
        },
        Source {
            issuer: "any".to_owned(),
            uri: format!("{base}/moved"),
        },
        Source {
            issuer: format!("{base}/issuer/"),
            uri: String::new(),
        },
    ] {
        assert_eq!(&*fetcher.keys(&source).await.unwrap(), KEYS, "{source:?}");
    }
}

#[tokio::test]
async fn what_is_no_set_of_keys_is_refused_by_name() {
    let (base, _server) = serve(answers).await;
    let fetcher = fetcher(Reach::Everywhere);
    for (path, wrong) in [
        ("/large", "larger than"),
        ("/short", "broke off"),
        ("/words", "no set of keys"),
        ("/odd", "no set of keys"),
        ("/round", "does not follow"),
        ("/none", "404"),
    ] {
        let uri = format!("{base}{path}");
        let source = Source {
            issuer: "any".to_owned(),
            uri,
        };
        let told = fetch::told(&fetcher.keys(&source).await.unwrap_err());
        assert!(told.contains(wrong), "{path}: {told}");
    }
    for uri in ["ftp://a.test/", "/keys", "http://"] {
        let source = Source {
            issuer: "any".to_owned(),
            uri: uri.to_owned(),
        };
        let refused = fetcher.keys(&source).await.unwrap_err();
        assert!(
            matches!(refused, FetchError::Address(_)),
            "{uri}: {refused}"
        );
    }
}

#[tokio::test]
async fn controls_own_host_and_link_are_not_asked() {
    let fetcher = fetcher(Reach::Others);
    for host in [
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "[fe80::1]",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ] {
        let source = Source {
            issuer: "any".to_owned(),
            uri: format!("http://{host}:1/keys"),
        };
        let refused = fetcher.keys(&source).await.unwrap_err();
        assert!(
            matches!(refused, FetchError::Forbidden { .. }),
            "{host}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_source_is_asked_again_and_its_last_good_keys_stay() {
    use std::sync::atomic::{AtomicU8, Ordering};

    let (state, (asked, mut asks)) = (Arc::new(AtomicU8::new(0)), mpsc::unbounded_channel());
    let shown = state.clone();
    let (base, _server) = serve(move |_, _| {
        let now = shown.load(Ordering::SeqCst);
        asked.send(now).unwrap();
        match now {
            1 => ok(KEYS),
            2 => ok(r#"{"keys":[{}]}"#),
            _ => "HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n".to_owned(),
        }
    })
    .await;
    let source = Source {
        issuer: "any".to_owned(),
        uri: format!("{base}/keys"),
    };
    let wants = Wanted::from([(source.clone(), Duration::from_secs(60))]);
    let (wanted, receiver) = watch::channel(wants);
    let (reports, mut told) = mpsc::channel(8);
    let short = Duration::from_millis(5);
    let timing = Timing {
        renewal: short,
        pause: (short, short),
        first: Duration::from_secs(60),
    };
    let task = tokio::spawn(run(
        (fetcher(Reach::Everywhere), timing),
        receiver,
        reports.downgrade(),
        Arc::new(Metrics::default()),
        CancellationToken::new(),
    ));
    let mut next = async || match told.recv().await {
        Some(Report::Keys(of, outcome)) if of == source => outcome,
        other => panic!("{other:?}"),
    };
    assert!(next().await.unwrap_err().contains("503"));
    state.store(1, Ordering::SeqCst);
    assert_eq!(&*next().await.unwrap(), KEYS);
    state.store(0, Ordering::SeqCst);
    // It is asked again, in vain: that is no news, and neither are the same keys.
    while asks.recv().await.unwrap() != 1 {}
    while asks.recv().await.unwrap() != 0 {}
    assert_eq!(asks.recv().await.unwrap(), 0);
    state.store(2, Ordering::SeqCst);
    assert_eq!(&*next().await.unwrap(), r#"{"keys":[{}]}"#);
    drop(wanted);
    task.await.unwrap();
}
