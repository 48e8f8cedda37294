//! Joining and leaving the mesh: only new connections change their way, open ones go on byte for byte.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use lab::{Direction, End, Lab, Pod, Verdict, patience};
use mesh::file::format::TunnelProtocol;
use nix::libc;
use socket2::{Domain, Socket, Type};

use crate::story::{PORT, Pair, SOON, logged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_survive_enrolment_and_release_of_both_ends() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::outside().await;
    let before = client.open(server.at(PORT), "before").await.unwrap();
    tokio::try_join!(client.enroll(), server.enroll()).unwrap();
    let inside = client.open(server.at(PORT), "inside").await.unwrap();
    let sniffer = lab.sniff().unwrap();
    for held in [&before, &inside] {
        assert_eq!(
            held.say("in the mesh").await,
            Verdict::Answered("in the mesh".to_owned())
        );
    }
    // The old one goes on as it began; the new one is in the tunnel.
    let sniffed = sniffer.stop().unwrap();
    assert!(
        sniffed.ports().contains(&PORT) && sniffed.ports().contains(&15008),
        "{:?}",
        sniffed.ports()
    );
    tokio::try_join!(client.release(), server.release()).unwrap();
    for held in [&before, &inside] {
        assert_eq!(
            held.say("out again").await,
            Verdict::Answered("out again".to_owned())
        );
    }
    let sniffer = lab.sniff().unwrap();
    assert!(
        client
            .get(server.at(PORT))
            .marked("outside-again")
            .await
            .answer()
            .is_some()
    );
    assert!(sniffer.stop().unwrap().sees("outside-again"));
    for held in [before, inside] {
        assert_eq!(held.finish().await.unwrap(), End::Finished);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_under_way_is_intact_through_enrolment_and_release() {
    let Pair {
        lab: _lab,
        client,
        server,
    } = Pair::outside().await;
    let load = client.get(server.at(PORT)).repeatedly(2).await.unwrap();
    let bytes = 1 << 30;
    let transfer = client.transfer(server.at(PORT), Direction::Both, bytes, "under-way");
    let changes = async {
        for _ in 0..2 {
            tokio::try_join!(client.enroll(), server.enroll())?;
            tokio::try_join!(client.release(), server.release())?;
        }
        anyhow::Ok(())
    };
    let (done, changed) = tokio::join!(transfer, changes);
    changed.unwrap();
    let done = done.unwrap();
    assert!(done.intact && done.bytes == bytes, "{done:?}");
    let tally = load.stop().await.unwrap();
    let failed = tally.refused + tally.reset + tally.closed + tally.timed_out + tally.failed;
    assert!(
        failed == 0 && tally.answered > 0,
        "no request may fail while pods come and go: {tally:?}"
    );
}

/// Keeps the last part of a client's handshake back for a while (`TCP_DEFER_ACCEPT`, tcp(7)).
#[expect(unsafe_code, reason = "no library of ours knows this option")]
fn defer_accept(socket: &Socket) -> std::io::Result<()> {
    let seconds: libc::c_int = 1;
    // SAFETY: the option is an integer of this size, and the socket is open.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Lets a pod go without telling anybody, as peers see it that have not heard yet.
async fn let_go(lab: &Lab, node: usize, pod: &Pod) {
    let (node, uid) = (Arc::clone(lab.node(node)), pod.uid().to_owned());
    let removed = tokio::task::spawn_blocking(move || node.zds().remove(&uid));
    removed.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_had_begun_when_a_pod_is_let_go_is_no_reset() {
    let lab = Lab::start().await.unwrap();
    let (client, server) = tokio::try_join!(
        lab.pod("client").outside_the_mesh().start(),
        lab.pod("server").on(lab.node(2)).serving(PORT).start(),
    )
    .unwrap();
    // A client that waits to accept data keeps the last part of its handshake back for 200 ms, or
    // until it has something to say: as if it were that far away.
    let to = server.at(PORT).into();
    let connecting = client.netns().enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        defer_accept(&socket)?;
        socket.connect(&to)?;
        std::io::Result::Ok(std::net::TcpStream::from(socket))
    });
    let mut tcp = connecting.unwrap().unwrap();
    let_go(&lab, 2, &server).await;
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let request = b"GET /who HTTP/1.1\r\nhost: lab\r\n\r\n";
    let mut answer = [0; 12];
    tcp.write_all(request).unwrap();
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_while_it_is_called_is_called_as_it_takes_calls_now() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let_go(&lab, 2, &server).await;
    // Who listens where its tunnels ended says nothing, so that the call is under way for a while.
    let free = || server.netns().listen(server.at(15008)).ok();
    let silent = patience::some("the port of tunnels to be free", SOON, async || free());
    let silent = silent.await.unwrap();
    let (caller, to) = (client.clone(), server.at(PORT));
    let called = tokio::spawn(async move { caller.get(to).within(SOON).await });
    let (silent, call) = tokio::task::spawn_blocking(move || {
        let call = silent.accept();
        (silent, call)
    })
    .await
    .unwrap();
    server.speak(TunnelProtocol::None).await.unwrap();
    drop((silent, call));
    let verdict = called.await.unwrap();
    assert!(verdict.answer().is_some(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_takes_its_connections_with_it() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let held = client.open(server.at(PORT), "held").await.unwrap();
    server.end();
    let node = std::sync::Arc::clone(lab.node(2));
    let uid = server.uid().to_owned();
    tokio::task::spawn_blocking(move || node.zds().remove(&uid))
        .await
        .unwrap()
        .unwrap();
    let end = held.end_within(SOON).await.unwrap();
    assert!(matches!(end, End::Reset | End::Finished), "{end:?}");
    let verdict = client
        .get(server.at(PORT))
        .within(Duration::from_secs(15))
        .await;
    assert!(verdict.answer().is_none(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_held_until_the_control_plane_tells_of_its_pod() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let removed = std::sync::Mutex::new(None);
    let uid = client.uid().to_owned();
    lab.change(|document| *removed.lock().unwrap() = document.workloads.remove(&uid))
        .await
        .unwrap();
    let entry = removed.into_inner().unwrap().unwrap();
    let early = client.clone();
    let to = server.at(PORT);
    let waiting = tokio::spawn(async move { early.get(to).within(Duration::from_secs(10)).await });
    let held = || {
        lab.node(1)
            .ztunnel()
            .metrics()
            .is_ok_and(|metrics| metrics.sum("culvert_held_connections", &[]) >= 1.0)
    };
    patience::until("a connection to be held", SOON, held)
        .await
        .unwrap();
    lab.change(|document| drop(document.workloads.insert(uid.clone(), entry)))
        .await
        .unwrap();
    let verdict = waiting.await.unwrap();
    assert!(verdict.answer().is_some(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_nobody_tells_of_gets_a_clear_no_after_a_bounded_time() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let uid = client.uid().to_owned();
    lab.change(|document| drop(document.workloads.remove(&uid)))
        .await
        .unwrap();
    let verdict = client
        .get(server.at(PORT))
        .within(Duration::from_secs(10))
        .await;
    assert!(verdict.is_denied(), "{verdict}");
    let line = logged(
        lab.node(1),
        &[
            ("direction", "outbound"),
            ("dst.addr", &server.at(PORT).to_string()),
        ],
    )
    .await;
    assert!(line.get("error").contains("unknown"), "{line:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_sync_connections_are_held_and_not_let_out() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::on(Lab::builder().without_ztunnel()).await;
    let blind = lab.node(1).ztunnel();
    let recipe = blind.recipe();
    let real = recipe.environment["LOCAL_XDS_PATH"].clone();
    let missing = lab.traces().folder.join("late.yaml");
    blind.set_recipe(recipe.with("LOCAL_XDS_PATH", missing.to_string_lossy()));
    for node in lab.nodes() {
        node.ztunnel().launch().unwrap();
    }
    lab.node(2).ztunnel().ready().await.unwrap();
    let captured = || {
        let metrics = blind.metrics();
        metrics.is_ok_and(|metrics| metrics.sum("culvert_pods", &[("state", "captured")]) >= 1.0)
    };
    patience::until(
        "the client to be captured",
        Duration::from_secs(10),
        captured,
    )
    .await
    .unwrap();
    let sniffer = lab.sniff().unwrap();
    let early = || client.get(server.at(PORT)).marked("too-early");
    let verdict = early().within(Duration::from_millis(300)).await;
    assert_eq!(
        verdict,
        Verdict::TimedOut,
        "held, neither refused nor let out"
    );
    let arrive = async { std::fs::copy(real, &missing).map(drop) };
    let (verdict, arrived) = tokio::join!(early().within(Duration::from_secs(10)), arrive);
    arrived.unwrap();
    assert!(verdict.answer().is_some(), "{verdict}");
    assert!(!sniffer.stop().unwrap().sees("too-early"));
}
