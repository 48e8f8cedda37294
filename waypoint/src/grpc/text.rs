//! The base64 of `application/grpc-web-text`, as it comes and goes in pieces: what is incomplete waits,
//! and never more than three bytes of it. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Characters that stand for up to three bytes.
const GROUP: usize = 4;
/// A frame's head: flags, and its length in four bytes, highest first.
const HEAD: usize = 5;

/// Why a text can't be read, with Envoy's response code details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It ends within a group.
    #[error("the text of gRPC-Web ends within a group of base64: padding is missing")]
    Size,
    /// It has characters that base64 has not.
    #[error("the text of gRPC-Web is no base64")]
    Data,
}

impl Unreadable {
    /// `%RESPONSE_CODE_DETAILS%`
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            Self::Size => "grpc_base_64_decode_failed_bad_size",
            Self::Data => "grpc_base_64_decode_failed",
        }
    }
}

/// Text → bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    waiting: [u8; GROUP],
    count: usize,
}

impl Decoder {
    /// What the next piece of text gives; nothing where its group isn't complete yet. `last` where no
    /// more text follows.
    ///
    /// # Errors
    /// It isn't base64, or ends within a group.
    pub fn take(&mut self, text: &[u8], last: bool) -> Result<Bytes, Unreadable> {
        let available = self.count + text.len();
        if last && !available.is_multiple_of(GROUP) {
            return Err(Unreadable::Size);
        }
        let mut bytes = Vec::with_capacity(available / GROUP * 3);
        let mut text = text;
        if self.count > 0 {
            let (filling, rest) = text.split_at(text.len().min(GROUP - self.count));
            self.keep(filling);
            text = rest;
            if self.count < GROUP {
                return Ok(Bytes::new());
            }
            self.count = 0;
            decode(&self.waiting, &mut bytes)?;
        }
        let (whole, rest) = text.split_at(text.len() / GROUP * GROUP);
        decode(whole, &mut bytes)?;
        self.keep(rest);
        Ok(bytes.into())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// It ends within a group.
    pub fn end(&self) -> Result<(), Unreadable> {
        match self.count {
            0 => Ok(()),
            _ => Err(Unreadable::Size),
        }
    }

    /// Never more than is missing to a group.
    fn keep(&mut self, text: &[u8]) {
        let end = self.count + text.len();
        self.waiting[self.count..end].copy_from_slice(text);
        self.count = end;
    }
}

/// Whole groups. Messages may have been encoded one by one, each with its own padding.
fn decode(mut text: &[u8], into: &mut Vec<u8>) -> Result<(), Unreadable> {
    while !text.is_empty() {
        let padding = text.iter().position(|byte| *byte == b'=');
        let end = padding.map_or(text.len(), |at| at / GROUP * GROUP + GROUP);
        let (part, rest) = text.split_at(end);
        let decoded = STANDARD.decode_vec(part, into);
        decoded.map_err(|_| Unreadable::Data)?;
        text = rest;
    }
    Ok(())
}

/// Bytes → text, each frame of gRPC by itself with its own padding, without waiting for its end.
#[derive(Debug, Default)]
pub struct Encoder {
    waiting: [u8; 3],
    count: usize,
    at: Place,
}

/// Where in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In its head, of which so many bytes were there, with the length as far as it was read.
    Head(usize, u32),
    /// So many bytes before its end.
    Message(u32),
}

impl Default for Place {
    fn default() -> Self {
        Self::Head(0, 0)
    }
}

impl Encoder {
    /// The text for the next bytes, but for those that wait for the rest of their group.
    #[must_use]
    pub fn take(&mut self, mut bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * GROUP + GROUP);
        while !bytes.is_empty() {
            let most = match self.at {
                Place::Head(read, _) => HEAD - read,
                Place::Message(left) => usize::try_from(left).unwrap_or(usize::MAX),
            };
            let (part, rest) = bytes.split_at(bytes.len().min(most));
            self.encode(part, &mut text);
            self.pass(part);
            if self.at == Place::default() {
                text.push_str(&self.end());
            }
            bytes = rest;
        }
        text
    }

    /// What waited, with its padding: of a frame that ends here.
    #[must_use]
    pub fn end(&mut self) -> String {
        let text = STANDARD.encode(&self.waiting[..self.count]);
        self.count = 0;
        text
    }

    fn encode(&mut self, mut bytes: &[u8], text: &mut String) {
        if self.count > 0 {
            let (filling, rest) = bytes.split_at(bytes.len().min(3 - self.count));
            self.keep(filling);
            bytes = rest;
            if self.count < 3 {
                return;
            }
            self.count = 0;
            STANDARD.encode_string(self.waiting, text);
        }
        let (whole, rest) = bytes.split_at(bytes.len() / 3 * 3);
        STANDARD.encode_string(whole, text);
        self.keep(rest);
    }

    /// Goes on by these bytes, which are within one part of a frame.
    fn pass(&mut self, bytes: &[u8]) {
        self.at = match self.at {
            Place::Head(read, length) => {
                // The first byte has the flags.
                let skipped = usize::from(read == 0);
                let of_length = &bytes[skipped.min(bytes.len())..];
                let length = of_length
                    .iter()
                    .fold(length, |length, byte| length << 8 | u32::from(*byte));
                match read + bytes.len() {
                    HEAD if length == 0 => Place::default(),
                    HEAD => Place::Message(length),
                    read => Place::Head(read, length),
                }
            }
            Place::Message(left) => {
                let passed = u32::try_from(bytes.len()).unwrap_or(left);
                match left.saturating_sub(passed) {
                    0 => Place::default(),
                    left => Place::Message(left),
                }
            }
        };
    }

    /// Never more than is missing to a group.
    fn keep(&mut self, bytes: &[u8]) {
        let end = self.count + bytes.len();
        self.waiting[self.count..end].copy_from_slice(bytes);
        self.count = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        frame
    }

    /// What decoding these pieces gives, the last of which ends the text.
    fn decoded(pieces: &[&[u8]]) -> Result<Vec<u8>, Unreadable> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            all.extend(decoder.take(piece, at + 1 == pieces.len())?);
        }
        decoder.end()?;
        Ok(all)
    }

    #[test]
    fn what_is_no_base64_is_told_apart_from_what_is_cut_off() {
        assert_eq!(decoded(&[b"AAAAAAVoZWxsbw=="]).unwrap(), frame(b"hello"));
        assert_eq!(decoded(&[b"AAAAAAVoZWxsbw"]), Err(Unreadable::Size));
        assert_eq!(decoded(&[b"AA", b"AAA"]), Err(Unreadable::Size));
        assert_eq!(decoded(&[b"AA*A"]), Err(Unreadable::Data));
        // Bits that padding cuts off are zeros, or two texts would be the same bytes.
        assert_eq!(decoded(&[b"AAB="]), Err(Unreadable::Data));
        assert_eq!(decoded(&[b"===="]), Err(Unreadable::Data));
        let mut open = Decoder::default();
        assert_eq!(open.take(b"AAAAA", false).unwrap(), [0; 3].as_slice());
        assert_eq!(open.end(), Err(Unreadable::Size));
    }

    #[test]
    fn messages_may_have_their_own_padding() {
        assert_eq!(decoded(&[b"YQ==YmM=ZGVm"]).unwrap(), b"abcdef");
        assert_eq!(decoded(&[b"YQ==YmM=", b"ZGVm"]).unwrap(), b"abcdef");
        assert_eq!(decoded(&[b"YQ=", b"=Ym", b"M=ZGVm"]).unwrap(), b"abcdef");
    }

    #[test]
    fn frames_are_encoded_one_by_one() {
        let mut encoder = Encoder::default();
        let (one, other) = (frame(b"hello"), frame(b""));
        let text = encoder.take(&[one.clone(), other.clone()].concat());
        let apart = [one, other].map(|frame| STANDARD.encode(frame)).concat();
        assert_eq!(text, apart);
        assert_eq!(encoder.end(), "");
        // A frame that is cut off is told as far as it came.
        assert_eq!(encoder.take(&[0, 0, 0, 0, 9, b'a', b'b', b'c']), "AAAAAAlh");
        assert_eq!(encoder.end(), STANDARD.encode(b"bc"));
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_as_the_whole(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
            cuts in prop::collection::vec(1_usize..12, 1..40),
        ) {
            let frames: Vec<_> = messages.iter().map(|message| frame(message)).collect();
            let bytes = frames.concat();
            let text: String = frames.iter().map(|frame| STANDARD.encode(frame)).collect();
            let mut encoder = Encoder::default();
            let mut told = String::new();
            for piece in pieces(&bytes, &cuts) {
                told.push_str(&encoder.take(piece));
                prop_assert!(encoder.count < 3);
            }
            told.push_str(&encoder.end());
            prop_assert_eq!(&told, &text);
            let read = decoded(&pieces(text.as_bytes(), &cuts));
            prop_assert_eq!(read.unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_it_panic(
            text in prop::collection::vec(prop::sample::select(b"AQz/=*\n".to_vec()), 0..40),
            cuts in prop::collection::vec(1_usize..7, 1..40),
        ) {
            let whole = decoded(&[text.as_slice()]);
            let split = decoded(&pieces(&text, &cuts));
            prop_assert_eq!(whole.is_ok(), split.is_ok());
        }
    }

    fn pieces<'b>(mut bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
            if bytes.is_empty() {
                return pieces;
            }
        }
        pieces
    }
}
