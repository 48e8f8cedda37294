//! When a round ends, what goes out with it, and what becomes of those who write without one.

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::yield_now;

use super::*;

/// Runs a story on a thread whose tasks keep their order, with rounds.
fn with_rounds(story: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
    let runtime = runtime.unwrap();
    runtime.spawn_local(rounds());
    runtime.block_on(async {
        // The task of the rounds has its first turn.
        yield_now().await;
        story.await;
    });
}

fn pair() -> (Corked<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(1 << 16);
    (in_rounds(near, Left::Sent), far)
}

/// What has come since the last look.
fn come(far: &mut DuplexStream) -> usize {
    let read = far.read(&mut [0; 1 << 16]).now_or_never();
    read.map_or(0, Result::unwrap)
}

async fn say(corked: &mut Corked<DuplexStream>, what: &[u8]) {
    corked.write_all(what).await.unwrap();
    corked.flush().await.unwrap();
}

#[test]
fn what_all_tasks_of_a_round_write_goes_out_after_the_last() {
    with_rounds(async {
        let ((mut one, mut one_far), (mut other, mut other_far)) = (pair(), pair());
        // It is ready before the round begins, and has its turn before that ends.
        let task = tokio::task::spawn_local(async move {
            say(&mut other, b"another").await;
            (come(&mut one_far), other, one_far)
        });
        say(&mut one, b"one").await;
        let (came, mut other, mut one_far) = task.await.unwrap();
        assert_eq!(came, 0);
        assert_eq!((come(&mut one_far), come(&mut other_far)), (3, 7));
        // The next round is as good.
        say(&mut one, b"again").await;
        say(&mut other, b"and again").await;
        say(&mut one, b"!").await;
        yield_now().await;
        assert_eq!((come(&mut one_far), come(&mut other_far)), (6, 9));
    });
}

#[test]
fn nobody_waits_for_more_than_so_many_others() {
    with_rounds(async {
        let mut pairs: Vec<_> = (0..MOST + 1).map(|_| pair()).collect();
        for (corked, _) in &mut pairs {
            say(corked, b"x").await;
        }
        let came: usize = pairs.iter_mut().map(|(_, far)| come(far)).sum();
        assert_eq!(came, MOST);
    });
}

#[test]
fn what_was_written_goes_out_though_its_connection_is_dropped() {
    with_rounds(async {
        let (mut corked, mut far) = pair();
        say(&mut corked, b"goodbye").await;
        drop(corked);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"goodbye");
    });
}

#[test]
fn what_may_be_sent_elsewhere_is_forgotten_with_its_connection() {
    with_rounds(async {
        let (near, mut far) = duplex(100);
        let mut corked = in_rounds(near, Left::Forgotten);
        say(&mut corked, b"gone").await;
        yield_now().await;
        say(&mut corked, b"given up").await;
        drop(corked);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"gone");
    });
}

#[test]
fn a_slow_reader_gets_everything_though_nobody_writes_again() {
    with_rounds(async {
        let (near, mut far) = duplex(10);
        let mut corked = in_rounds(near, Left::Sent);
        say(&mut corked, &[b'x'; 1000]).await;
        far.read_exact(&mut [0; 1000]).await.unwrap();
    });
}

#[test]
fn a_reader_that_takes_nothing_keeps_no_dropped_connection_open() {
    with_rounds(async {
        let (near, mut far) = duplex(10);
        let mut corked = in_rounds(near, Left::Sent);
        say(&mut corked, &[b'x'; 1000]).await;
        yield_now().await;
        drop(corked);
        yield_now().await;
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 10);
    });
}

#[test]
fn who_waits_for_room_goes_on_when_there_is() {
    with_rounds(async {
        let (near, mut far) = duplex(3);
        let mut corked = in_rounds(near, Left::Sent);
        let writing = tokio::task::spawn_local(async move {
            // What waits, and what is too large to: the second finds no room, and a round comes by.
            say(&mut corked, b"head").await;
            say(&mut corked, &vec![b'x'; 20_000]).await;
            corked.shutdown().await.unwrap();
        });
        for _ in 0..5 {
            yield_now().await;
        }
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 20_004);
        writing.await.unwrap();
    });
}

#[test]
fn who_is_refused_learns_of_it_at_the_next_flush() {
    with_rounds(async {
        let (mut corked, far) = pair();
        drop(far);
        say(&mut corked, b"lost").await;
        yield_now().await;
        let error = corked.flush().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[tokio::test]
async fn without_rounds_nothing_waits() {
    let (mut corked, mut far) = pair();
    corked.write_all(b"at once").await.unwrap();
    assert_eq!(come(&mut far), 7);
}

#[test]
fn when_rounds_end_nothing_is_left_behind() {
    let (sender, mut far) = duplex(100);
    let mut kept = None;
    with_rounds(async {
        let mut corked = in_rounds(sender, Left::Sent);
        say(&mut corked, b"last").await;
        kept = Some(corked);
    });
    assert_eq!(come(&mut far), 4);
    // Its task is gone with the runtime.
    let corked = kept.as_mut().unwrap();
    assert!(say(corked, b"alone").now_or_never().is_some());
    assert_eq!(come(&mut far), 5);
}
