//! The text of gRPC-Web, as it comes in pieces: however it is cut, the same comes of it, what waits
//! stays small, and what was written can be read.

use bytes::Bytes;
use waypoint::grpc::text::{Decoder, Encoder, Unreadable};
use waypoint::grpc::web::Web;

/// What of an input says how it is cut: a length for each of the first pieces.
const CUTS: usize = 4;

/// The first bytes are the pieces' lengths, the others what a client or an upstream says.
pub fn check(bytes: &[u8]) {
    let Some((cuts, said)) = bytes.split_at_checked(CUTS) else {
        return;
    };
    let pieces = cut(said, cuts);
    decoded(said, &pieces);
    encoded(said, &pieces);
}

/// So many pieces as there are lengths, and the rest.
fn cut<'b>(mut said: &'b [u8], lengths: &[u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = said.split_at(said.len().min((*length).into()));
        pieces.push(piece);
        said = rest;
    }
    pieces.push(said);
    pieces
}

/// Text of a client.
fn decoded(said: &[u8], pieces: &[&[u8]]) {
    let whole = Decoder::default().take(said, true);
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    let mut outcome: Result<(), Unreadable> = Ok(());
    for piece in pieces {
        match decoder.take(piece, false) {
            Ok(bytes) => found.extend_from_slice(&bytes),
            Err(unreadable) => {
                outcome = Err(unreadable);
                break;
            }
        }
    }
    let outcome = outcome.and_then(|()| decoder.end());
    // Why it can't be read depends on what came until it was noticed.
    assert_eq!(
        whole.is_ok(),
        outcome.is_ok(),
        "whole {whole:?}, in pieces {outcome:?}"
    );
    if let Ok(whole) = whole {
        assert_eq!(whole, found, "the pieces say something else");
    }
}

/// Bytes of an upstream.
fn encoded(said: &[u8], pieces: &[&[u8]]) {
    let mut text = String::new();
    let mut encoder = Encoder::default();
    for piece in pieces {
        text.push_str(&encoder.take(piece));
    }
    text.push_str(&encoder.end());
    let mut whole = Encoder::default();
    let at_once = whole.take(said) + &whole.end();
    assert_eq!(text, at_once, "the pieces are written in another way");
    let read = Decoder::default().take(text.as_bytes(), true);
    assert_eq!(
        read,
        Ok(Bytes::copy_from_slice(said)),
        "what was written reads as something else"
    );
    let text = Web {
        asks_in_text: false,
        wants_text: true,
    };
    let mut body = text.body();
    let mut answer = Vec::new();
    for piece in pieces {
        answer.extend_from_slice(&body.data(Bytes::copy_from_slice(piece), false));
    }
    answer.extend_from_slice(&body.end());
    assert_eq!(answer, at_once.as_bytes(), "an answer is written otherwise");
}
