//! The adapter between two real tunnel ends.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Io;
use crate::hbone::test_rig::{Rig, permit};
use crate::hbone::{Limits, Request};

const DESTINATION: &str = "10.0.0.1:80";
const LIMIT: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it hangs")
}

/// The two ends of one stream; the rig keeps the connection under them.
async fn pair() -> (Rig, Io, Io) {
    let (accepted, mut streams) = mpsc::unbounded_channel();
    let rig = Rig::new(move |request: Request| {
        accepted.send(request.accept(permit()).unwrap()).unwrap();
        std::future::ready(())
    })
    .await;
    let near = soon(rig.connect(DESTINATION)).await.unwrap();
    let far = soon(streams.recv()).await.unwrap();
    (rig, near.into(), far.into())
}

#[tokio::test]
async fn bytes_come_as_they_were_written_in_pieces_of_any_size() {
    let (_rig, mut near, far) = pair().await;
    let mut rng = StdRng::seed_from_u64(7);
    let mut sent = vec![0; 3 << 20];
    rng.fill_bytes(&mut sent);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let echo = tokio::spawn(async move {
        tokio::io::copy(&mut from_far, &mut to_far).await.unwrap();
        to_far.shutdown().await.unwrap();
    });
    let (mut from_near, mut to_near) = tokio::io::split(&mut near);
    let write = async {
        let mut left = &sent[..];
        while !left.is_empty() {
            let piece = left.len().min(rng.random_range(1..200_000));
            let (one, two) = left[..piece].split_at(piece / 3);
            let slices = [IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(two)];
            left = &left[to_near.write_vectored(&slices).await.unwrap()..];
        }
        to_near.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = soon(async { tokio::join!(write, from_near.read_to_end(&mut received)) }).await;
    read.unwrap();
    assert!(received == sent, "{} bytes came back", received.len());
    soon(echo).await.unwrap();
}

#[tokio::test]
async fn what_was_looked_at_is_read_first() {
    let (_rig, mut near, far) = pair().await;
    near.write_all(b"GET / HTTP/1.1").await.unwrap();
    let (mut stream, _) = far.into_parts();
    let looked = soon(stream.read()).await.unwrap().unwrap();
    near.write_all(b"\r\n\r\n").await.unwrap();
    near.shutdown().await.unwrap();
    let mut far = Io::replaying(stream, looked);
    assert!(soon(far.fill_buf()).await.unwrap().starts_with(b"GET"));
    far.consume(4);
    let mut rest = String::new();
    soon(far.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "/ HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn what_was_not_read_is_handed_over_with_the_stream() {
    let (_rig, mut near, far) = pair().await;
    near.write_all(b"upgraded bytes").await.unwrap();
    let (stream, _) = far.into_parts();
    let mut far = Io::replaying(stream, Bytes::from_static(b"101 and "));
    let mut head = [0; 4];
    soon(far.read_exact(&mut head)).await.unwrap();
    let (stream, rest) = far.into_parts();
    assert_eq!((&head, &*rest), (b"101 ", &b"and "[..]));
    let mut far = Io::replaying(stream, rest);
    assert_eq!(soon(far.fill_buf()).await.unwrap(), b"and ");
    far.consume(4);
    let mut one = [0; 1];
    soon(far.read_exact(&mut one)).await.unwrap();
    let (_stream, rest) = far.into_parts();
    assert_eq!((&one, &*rest), (b"u", &b"pgraded bytes"[..]));
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    let (_rig, mut near, mut far) = pair().await;
    let piece = vec![1; 32 << 10];
    let mut written = 0;
    let most = 4 * usize::try_from(Limits::NODE.stream_window).unwrap();
    while written < most {
        match timeout(Duration::from_millis(500), near.write(&piece)).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break,
        }
    }
    assert!(written < most, "nobody reads, and {written} bytes went out");
    let mut got = vec![0; written];
    soon(far.read_exact(&mut got)).await.unwrap();
    assert!(soon(near.write(&piece)).await.unwrap() > 0);
}

#[tokio::test]
async fn a_half_close_ends_one_way_only() {
    let (_rig, mut near, mut far) = pair().await;
    near.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    let broken = near.write(b"x").await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
    let mut nothing = Vec::new();
    for _ in 0..2 {
        assert_eq!(soon(far.read_to_end(&mut nothing)).await.unwrap(), 0);
    }
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(near.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn a_reset_is_told_from_an_end() {
    let (_rig, mut near, far) = pair().await;
    far.reset();
    let error = soon(near.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    let (_rig, mut near, far) = pair().await;
    drop(far);
    let error = soon(near.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}
