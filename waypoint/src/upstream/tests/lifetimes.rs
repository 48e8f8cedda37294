//! How long connections to endpoints last, as a DestinationRule's connection pool says: idle, at all,
//! and where the other side has fallen silent.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;

use super::*;

/// Answers on every connection, and writes down when one ended after its last request.
async fn patient() -> (SocketAddr, Rc<RefCell<Vec<Duration>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ends = Rc::new(RefCell::new(Vec::new()));
    let book = ends.clone();
    spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let book = book.clone();
            spawn_local(async move {
                let mut buffer = [0; 1024];
                let mut last = Instant::now();
                while tcp.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    last = Instant::now();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    tcp.write_all(answer).await.unwrap();
                }
                book.borrow_mut().push(last.elapsed());
            });
        }
    });
    (address, ends)
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    story(async {
        let idle = Duration::from_millis(300);
        let ((short, short_ends), (long, long_ends)) = (patient().await, patient().await);
        let mut limited = cluster();
        limited.http.idle = Some(idle);
        let limited = entry(limited, &[short]);
        let unlimited = entry(cluster(), &[long]);
        let (brief, lasting) = (in_force(&limited), in_force(&unlimited));
        text(ask(&lasting, &unlimited).await.unwrap()).await;
        text(ask(&brief, &limited).await.unwrap()).await;
        until(|| !short_ends.borrow().is_empty()).await;
        let rested = short_ends.borrow()[0];
        assert!(rested >= idle, "closed after {rested:?}");
        // The other one was looked at as often, and is kept.
        assert!(ask(&lasting, &unlimited).await.unwrap().reused);
        assert!(long_ends.borrow().is_empty());
        assert!(!ask(&brief, &limited).await.unwrap().reused);
    });
}

/// What may befall a connection that rests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Nothing,
    Closed,
    /// Something comes that nobody asked for.
    Unasked,
}

#[test]
fn a_connection_that_rests_is_used_again_unless_something_came() {
    for meanwhile in [Meanwhile::Nothing, Meanwhile::Closed, Meanwhile::Unasked] {
        story(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (rests, gone) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
            let (wait, tell) = (rests.clone(), gone.clone());
            spawn_local(async move {
                loop {
                    let (mut tcp, _) = listener.accept().await.unwrap();
                    let (wait, tell) = (wait.clone(), tell.clone());
                    spawn_local(async move {
                        let mut buffer = [0; 1024];
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        let _ = tcp.read(&mut buffer).await.unwrap();
                        tcp.write_all(answer).await.unwrap();
                        wait.notified().await;
                        match meanwhile {
                            Meanwhile::Nothing => tell.notify_one(),
                            Meanwhile::Closed => tcp.shutdown().await.unwrap(),
                            Meanwhile::Unasked => tcp.write_all(answer).await.unwrap(),
                        }
                        while tcp.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                            tcp.write_all(answer).await.unwrap();
                        }
                        tell.notify_one();
                    });
                }
            });
            let (upstreams, cluster) = reaching(cluster(), &[address]);
            assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "ok");
            upstreams.look_after(Instant::now() + Duration::from_secs(2));
            rests.notify_one();
            gone.notified().await;
            let sent = ask(&upstreams, &cluster).await.unwrap();
            assert_eq!(
                sent.reused,
                meanwhile == Meanwhile::Nothing,
                "{meanwhile:?}"
            );
            assert_eq!(text(sent).await, "ok");
        });
    }
}

#[test]
fn a_connection_serves_no_request_after_its_longest_time() {
    story(async {
        for (version, protocol) in [
            (Version::HTTP_11, UpstreamProtocol::Http1),
            (Version::HTTP_2, UpstreamProtocol::Http2),
        ] {
            let server = server(version, |_| async { Response::new(Full::from("a")) }).await;
            let longest = Duration::from_millis(100);
            let mut cluster = cluster();
            cluster.http.protocol = protocol;
            cluster.http.max_duration = Some(longest);
            let (upstreams, cluster) = reaching(cluster, &[server.address]);
            let begun = Instant::now();
            while server.seen.borrow().connections < 3 {
                text(ask(&upstreams, &cluster).await.unwrap()).await;
            }
            assert!(begun.elapsed() >= longest * 2, "{version:?}");
        }
    });
}

/// Carries bytes to a server and back, until the first connection is told to carry no more of them:
/// it stays open then.
async fn carrier(to: SocketAddr) -> (SocketAddr, Rc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silence = Rc::new(Notify::new());
    let told = silence.clone();
    spawn_local(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let told = told.clone();
            spawn_local(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = told.notified() => std::future::pending().await,
                }
            });
        }
    });
    (address, silence)
}

#[test]
fn a_silent_connection_is_noticed_by_pings() {
    story(async {
        let answer = |_| async { Response::new(Full::from("a")) };
        let server = server(Version::HTTP_2, answer).await;
        let (address, silence) = carrier(server.address).await;
        let mut cluster = cluster();
        cluster.http.protocol = UpstreamProtocol::Http2;
        cluster.http.keepalive = Some((Duration::from_millis(100), Duration::from_secs(2)));
        let (upstreams, cluster) = reaching(cluster, &[address]);
        assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "a");
        silence.notify_waiters();
        // Nobody answers it, and without pings nobody would ever say so.
        let failed = ask(&upstreams, &cluster).await.unwrap_err();
        assert_eq!(failed.failure.flag(), "UC");
        assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "a");
        assert_eq!(server.seen.borrow().connections, 2);
    });
}
