//! What waits, what goes out at once, and what becomes of both when the other side is slow or gone.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// Counts writes.
#[derive(Debug)]
struct Counted {
    io: DuplexStream,
    writes: usize,
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.writes += usize::from(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn pair(room: usize) -> (Corked<Counted>, Outlet<Counted>, DuplexStream) {
    let (near, far) = duplex(room);
    let (corked, outlet) = cork(Counted {
        io: near,
        writes: 0,
    });
    (corked, outlet, far)
}

#[tokio::test]
async fn small_writes_of_a_turn_are_one() {
    let (mut corked, outlet, mut far) = pair(1 << 20);
    let turn = async {
        for _ in 0..10 {
            corked.write_all(&[b'x'; 1000]).await?;
            corked.flush().await?;
        }
        io::Result::Ok(())
    };
    outlet.drive(turn).await.unwrap();
    let mut got = [0; 10_000];
    far.read_exact(&mut got).await.unwrap();
    assert!(got.iter().all(|byte| *byte == b'x'));
    assert_eq!(outlet.0.lock().writes(), (1, 0));
}

#[tokio::test]
async fn what_is_large_goes_out_at_once_behind_what_waits() {
    let (mut corked, outlet, mut far) = pair(1 << 20);
    corked.write_all(b"head").await.unwrap();
    assert_eq!(outlet.0.lock().writes(), (0, 4));
    let body = vec![b'b'; MOST + 1];
    corked.write_all(&body).await.unwrap();
    outlet.let_out();
    let mut got = vec![0; 4 + body.len()];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!((&got[..4], &got[4..]), (&b"head"[..], &body[..]));
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back_and_gets_everything() {
    let (mut corked, outlet, mut far) = pair(1000);
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let writing = async {
        for piece in sent.chunks(700) {
            corked.write_all(piece).await?;
        }
        assert!(outlet.0.lock().waiting.len() <= MOST);
        corked.shutdown().await
    };
    let mut got = Vec::new();
    let (written, read) = tokio::join!(outlet.drive(writing), far.read_to_end(&mut got));
    written.unwrap();
    read.unwrap();
    assert_eq!(got, sent);
}

#[tokio::test]
async fn the_driver_is_woken_to_let_the_rest_out() {
    let (mut corked, outlet, mut far) = pair(1000);
    let (asked, mut told) = tokio::sync::oneshot::channel::<()>();
    let driver = tokio::spawn(async move {
        let turns = async {
            corked.write_all(&[b'x'; 5000]).await?;
            // Flushes whenever it is polled, as h2 does.
            poll_fn(|cx| {
                let _ = Pin::new(&mut corked).poll_flush(cx);
                Pin::new(&mut told).poll(cx).map(|_| ())
            })
            .await;
            io::Result::Ok(())
        };
        outlet.drive(turns).await
    });
    let mut got = [0; 5000];
    far.read_exact(&mut got).await.unwrap();
    asked.send(()).unwrap();
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_writes_next_learns_that_letting_out_failed() {
    let (mut corked, outlet, far) = pair(1000);
    corked.write_all(b"lost").await.unwrap();
    drop(far);
    outlet.let_out();
    let error = corked.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

impl State<Counted> {
    /// How many writes there were, and how many bytes wait.
    fn writes(&self) -> (usize, usize) {
        (self.io.writes, self.waiting.len())
    }
}
