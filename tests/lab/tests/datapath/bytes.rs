//! Bytes arrive as they were sent: sizes, directions, half-close, resets, many at once.

use std::time::Duration;

use lab::{Direction, End, Lab, Pod, patience};

use crate::story::{PORT, Pair, SOON};

const DIRECTIONS: [Direction; 4] = [
    Direction::Up,
    Direction::Down,
    Direction::Both,
    Direction::AfterServersEnd,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_around_every_boundary_arrive_intact_in_every_direction() {
    let Pair {
        lab: _lab,
        client,
        server,
    } = Pair::start().await;
    // Around a TLS record, a frame, the copy buffers and the windows.
    let sizes = [
        0,
        1,
        2,
        16_375,
        16_384,
        16_385,
        65_535,
        65_536,
        262_145,
        1 << 20,
        (4 << 20) + 1,
        (16 << 20) + 7,
    ];
    for bytes in sizes {
        for direction in DIRECTIONS {
            transfers(&client, &server, direction, bytes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_arrives_intact() {
    let Pair {
        lab: _lab,
        client,
        server,
    } = Pair::start().await;
    transfers(&client, &server, Direction::Up, 1 << 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_into_the_mesh_arrives_intact_in_every_direction() {
    let Pair {
        lab,
        client: _client,
        server,
    } = Pair::start().await;
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    for bytes in [1, 65_537, 5 << 20] {
        for direction in DIRECTIONS {
            transfers(&plain, &server, direction, bytes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_passes_both_ways() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    for (from, tag) in [(&client, "tunnel"), (&plain, "plain")] {
        // The client ends first: the answer comes after its FIN.
        let up = from
            .transfer(server.at(PORT), Direction::Up, 100_000, tag)
            .await
            .unwrap();
        assert!(up.intact && up.bytes == 100_000, "{tag}: {up:?}");
        // The server ends first: all that the client sends after that still arrives.
        let late = format!("late-{tag}");
        from.transfer(server.at(PORT), Direction::AfterServersEnd, 300_000, &late)
            .await
            .unwrap();
        let seen = first_ended(&server, &late).await;
        assert_eq!(
            (seen.0, seen.1, seen.2),
            (End::Finished, 300_000, true),
            "{tag}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_passes_as_a_reset_both_ways() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    let plain = lab.pod("plain").outside_the_mesh().start().await.unwrap();
    for (from, tag) in [(&client, "tunnel"), (&plain, "plain")] {
        let held = from.open(server.at(PORT), tag).await.unwrap();
        held.reset().await.unwrap();
        assert_eq!(
            first_ended(&server, tag).await.0,
            End::Reset,
            "client to server, {tag}"
        );
        let held = from
            .open(server.at(PORT), &format!("reset-by-{tag}"))
            .await
            .unwrap();
        server
            .reset_connections(&format!("reset-by-{tag}"))
            .await
            .unwrap();
        assert_eq!(
            held.end_within(SOON).await.unwrap(),
            End::Reset,
            "server to client, {tag}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_at_once_are_all_answered_and_leave_no_descriptor() {
    let Pair {
        lab,
        client,
        server,
    } = Pair::start().await;
    assert!(client.get(server.at(PORT)).await.answer().is_some());
    let before = descriptors(&lab);
    let tally = client
        .get(server.at(PORT))
        .within(Duration::from_secs(60))
        .times(2_000)
        .await
        .unwrap();
    assert_eq!(tally.answered, 2_000, "{tally:?}");
    // Idle tunnels may stay: a hundred streams go into one, so twenty were enough.
    let few = || descriptors(&lab) <= before + 2 * 25;
    let what = format!("descriptors to come down to about the {before} before");
    patience::until(&what, Duration::from_secs(20), few)
        .await
        .unwrap_or_else(|error| panic!("{error}; there are {}", descriptors(&lab)));
}

/// Open descriptors of all ztunnels.
fn descriptors(lab: &Lab) -> usize {
    let of = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    lab.nodes()
        .iter()
        .map(|node| of(node.ztunnel().pid().unwrap()))
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_only_its_own_stream() {
    let Pair {
        lab: _lab,
        client,
        server,
    } = Pair::start().await;
    // Opened and never read: the server sends into it until every window is full.
    let stuck = client
        .open_without_reading(server.at(PORT), 64 << 20)
        .await
        .unwrap();
    for _ in 0..20 {
        let verdict = client.get(server.at(PORT)).await;
        assert!(verdict.answer().is_some(), "{verdict}");
    }
    transfers(&client, &server, Direction::Both, 8 << 20).await;
    stuck.reset().await.unwrap();
}

async fn transfers(from: &Pod, to: &Pod, direction: Direction, bytes: u64) {
    let tag = format!("{direction:?}-{bytes}-{}", from.name());
    let done = tokio::time::timeout(
        Duration::from_secs(60),
        from.transfer(to.at(PORT), direction, bytes, &tag),
    );
    let done = done
        .await
        .unwrap_or_else(|_| panic!("{tag}: hangs"))
        .unwrap_or_else(|error| panic!("{tag}: {error:#}"));
    assert!(done.intact && done.bytes == bytes, "{tag}: {done:?}");
    if direction == Direction::AfterServersEnd {
        assert_eq!(
            first_ended(to, &tag).await,
            (End::Finished, bytes, true),
            "{tag}"
        );
    }
}

/// How the first connection under `tag` ended, on the server's side.
async fn first_ended(server: &Pod, tag: &str) -> (End, u64, bool) {
    let what = format!("the server to see the end of {tag}");
    let seen = patience::some(&what, Duration::from_secs(30), async || {
        server.ended(tag).await.unwrap().first().cloned()
    });
    let seen = seen.await.unwrap();
    (seen.end, seen.bytes, seen.intact)
}
