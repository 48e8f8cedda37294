//! What breaks, breaks safely: nothing in plaintext, nothing hangs, everything works again after.

use std::time::{Duration, Instant};

use lab::{Direction, End, Lab, Verdict, patience};
use nix::sys::signal::Signal;

use crate::story::{PORT, Pair, SOON, logged};

const MARKER: &str = "must-not-be-seen";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_ztunnel_leaks_nothing_and_its_successor_works() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let held = client.open(server.at(PORT), "held").await.unwrap();
    let sniffer = lab.sniff().unwrap();
    let load = client
        .get(server.at(PORT))
        .marked(MARKER)
        .within(Duration::from_secs(5))
        .repeatedly(4)
        .await
        .unwrap();
    answered_again(&client, &server, "under load").await;
    lab.node(1).ztunnel().kill().await.unwrap();
    // Its open tunnels end at once, and new connections are refused, not let out.
    assert_ne!(held.end_within(SOON).await.unwrap(), End::Open);
    let begun = Instant::now();
    for _ in 0..10 {
        let verdict = client.get(server.at(PORT)).marked(MARKER).await;
        assert!(verdict.is_denied(), "{verdict}");
        let into = server.get(client.at(PORT)).marked(MARKER).await;
        assert!(into.answer().is_none(), "{into}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    lab.node(1).ztunnel().launch().unwrap();
    lab.node(1).ztunnel().ready().await.unwrap();
    answered_again(&client, &server, "after the restart").await;
    let tally = load.stop().await.unwrap();
    assert!(
        tally.answered > 0 && tally.refused + tally.reset + tally.closed > 0,
        "{tally:?}"
    );
    assert_eq!((tally.timed_out, tally.failed), (0, 0), "{tally:?}");
    assert!(!sniffer.stop().unwrap().sees(MARKER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_ztunnel_at_the_servers_end_leaks_nothing_either() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    let held = client.open(server.at(PORT), "held").await.unwrap();
    let sniffer = lab.sniff().unwrap();
    assert!(
        client
            .get(server.at(PORT))
            .marked(MARKER)
            .await
            .answer()
            .is_some()
    );
    lab.node(2).ztunnel().kill().await.unwrap();
    assert_ne!(held.end_within(SOON).await.unwrap(), End::Open);
    for from in [&client, &plain] {
        let verdict = from.get(server.at(PORT)).marked(MARKER).await;
        assert!(
            matches!(verdict, Verdict::Refused | Verdict::Reset | Verdict::Closed),
            "{}: {verdict}",
            from.name()
        );
    }
    lab.node(2).ztunnel().launch().unwrap();
    lab.node(2).ztunnel().ready().await.unwrap();
    answered_again(&client, &server, "after the restart").await;
    assert!(plain.get(server.at(PORT)).await.answer().is_some());
    assert!(!sniffer.stop().unwrap().sees(MARKER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_ztunnel_holds_and_goes_on_when_continued() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let held = client.open(server.at(PORT), "held").await.unwrap();
    lab.node(1).ztunnel().signal(Signal::SIGSTOP).unwrap();
    let sniffer = lab.sniff().unwrap();
    let verdict = client
        .get(server.at(PORT))
        .marked(MARKER)
        .within(Duration::from_millis(500))
        .await;
    assert_eq!(verdict, Verdict::TimedOut);
    lab.node(1).ztunnel().signal(Signal::SIGCONT).unwrap();
    assert_eq!(
        held.say("awake").await,
        Verdict::Answered("awake".to_owned())
    );
    answered_again(&client, &server, "after SIGCONT").await;
    assert!(!sniffer.stop().unwrap().sees(MARKER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_connections_finish_then_ends_in_time_and_keeps_pods_captured() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::on(Lab::builder().env("TERMINATION_GRACE_PERIOD_SECONDS", "8")).await;
    let held = client.open(server.at(PORT), "held").await.unwrap();
    let begun = Instant::now();
    lab.node(1).ztunnel().signal(Signal::SIGTERM).unwrap();
    patience::some("new connections to be refused", SOON, async || {
        client.get(server.at(PORT)).await.is_denied().then_some(())
    })
    .await
    .unwrap();
    assert_eq!(
        held.say("last words").await,
        Verdict::Answered("last words".to_owned())
    );
    assert_eq!(held.finish().await.unwrap(), End::Finished);
    let status = lab
        .node(1)
        .ztunnel()
        .wait(Duration::from_secs(8))
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let sniffer = lab.sniff().unwrap();
    let verdict = client.get(server.at(PORT)).marked(MARKER).await;
    assert!(verdict.is_denied(), "still captured, by nobody: {verdict}");
    assert!(!sniffer.stop().unwrap().sees(MARKER));
    lab.node(1).ztunnel().launch().unwrap();
    lab.node(1).ztunnel().ready().await.unwrap();
    answered_again(&client, &server, "after the restart").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_end_is_cut_at_the_deadline() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::on(Lab::builder().env("TERMINATION_GRACE_PERIOD_SECONDS", "6")).await;
    let held = client.open(server.at(PORT), "held").await.unwrap();
    let status = lab
        .node(1)
        .ztunnel()
        .terminate(Duration::from_secs(7))
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert_ne!(held.end_within(SOON).await.unwrap(), End::Open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_certificate_authority_known_pods_go_on_and_new_ones_get_a_clear_no() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    lab.authority().stop();
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    let late = lab.pod("late").start().await.unwrap();
    let verdict = late
        .get(server.at(PORT))
        .within(Duration::from_secs(30))
        .await;
    assert!(verdict.is_denied(), "{verdict}");
    let line = logged(
        lab.node(1),
        &[("direction", "outbound"), ("src.workload", "late")],
    )
    .await;
    assert!(line.get("error").contains("certificate"), "{line:?}");
    lab.start_authority().unwrap();
    let again = patience::some(
        "the new pod to get its certificate",
        Duration::from_secs(60),
        async || {
            late.get(server.at(PORT))
                .within(Duration::from_secs(20))
                .await
                .answer()
                .map(str::to_owned)
        },
    );
    again.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_before_they_end_and_nobody_notices() {
    let lab = Lab::builder().without_ztunnel().start().await.unwrap();
    lab.authority().set_lifetime(Some(6));
    lab.launch().await.unwrap();
    let (client, server) = tokio::try_join!(
        lab.pod("client").start(),
        lab.pod("server").on(lab.node(2)).serving(PORT).start(),
    )
    .unwrap();
    let load = client.get(server.at(PORT)).repeatedly(1).await.unwrap();
    let renewed = || lab.authority().signed(&client.identity()) >= 3;
    patience::until("two renewals", Duration::from_secs(20), renewed)
        .await
        .unwrap();
    let tally = load.stop().await.unwrap();
    let failed = tally.refused + tally.reset + tally.closed + tally.timed_out + tally.failed;
    assert!(failed == 0 && tally.answered > 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_node_is_a_clear_no_after_a_bounded_time() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    lab.node(2).unplug().unwrap();
    let fresh = lab.pod("fresh").start().await.unwrap();
    let verdict = fresh
        .get(server.at(PORT))
        .within(Duration::from_secs(15))
        .await;
    assert!(verdict.is_denied(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_under_way_end_when_a_ztunnel_is_killed() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let transfer = client.transfer(server.at(PORT), Direction::Up, 1 << 34, "endless");
    let kill = async {
        let received = || {
            lab.node(2)
                .ztunnel()
                .metrics()
                .is_ok_and(|metrics| metrics.sum("culvert_connections", &[]) >= 1.0)
        };
        patience::until("the transfer to run", SOON, received).await?;
        lab.node(2).ztunnel().kill().await
    };
    let (outcome, killed) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(10), transfer),
        kill
    );
    killed.unwrap();
    assert!(outcome.expect("the transfer hangs").is_err());
}

async fn answered_again(client: &lab::Pod, server: &lab::Pod, when: &str) {
    let what = format!("a request to be answered {when}");
    patience::some(&what, Duration::from_secs(10), async || {
        client
            .get(server.at(PORT))
            .await
            .answer()
            .map(str::to_owned)
    })
    .await
    .unwrap();
}
