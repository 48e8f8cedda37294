//! The words of an expression: names, numbers, texts and signs.

use std::fmt;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::{Problem, unserved, wrong};

/// One word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word<'s> {
    Name(&'s str),
    Int(i64),
    Double(f64),
    Text(String),
    Sign(&'static str),
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(to, "{name:?}"),
            Self::Int(number) => write!(to, "{number}"),
            Self::Double(number) => write!(to, "{number}"),
            Self::Text(text) => write!(to, "the text {text:?}"),
            Self::Sign(sign) => write!(to, "{sign:?}"),
        }
    }
}

/// Signs, the longer before those that they begin with.
const SIGNS: [&str; 24] = [
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", "(", ")",
    "[", "]", "{", "}", ",", ".",
];

/// The words that are still to come.
pub(super) struct Words<'s>(Peekable<IntoIter<Word<'s>>>);

impl<'s> Words<'s> {
    /// The words of a text.
    pub(super) fn of(source: &'s str) -> Result<Self, Problem> {
        let mut words = Vec::new();
        let mut rest = source.trim_ascii_start();
        while let Some(first) = rest.chars().next() {
            let (word, after) = match first {
                '/' if rest.starts_with("//") => {
                    rest = rest.split_once('\n').map_or("", |(_, after)| after);
                    rest = rest.trim_ascii_start();
                    continue;
                }
                '"' | '\'' => quoted(rest, first)?,
                first if first.is_ascii_digit() => number(rest)?,
                first if first.is_ascii_alphabetic() || first == '_' => {
                    let inside = |char: char| char.is_ascii_alphanumeric() || char == '_';
                    let end = rest.find(|char| !inside(char)).unwrap_or(rest.len());
                    let (name, after) = rest.split_at(end);
                    if after.starts_with(['"', '\'']) {
                        return Err(unserved(format!("a text with {name:?} before it")));
                    }
                    (Word::Name(name), after)
                }
                _ => SIGNS
                    .iter()
                    .find_map(|sign| Some((Word::Sign(sign), rest.strip_prefix(sign)?)))
                    .ok_or_else(|| wrong(format!("{first:?} is no part of an expression")))?,
            };
            words.push(word);
            rest = after.trim_ascii_start();
        }
        Ok(Self(words.into_iter().peekable()))
    }

    /// The next word.
    pub(super) fn next(&mut self) -> Option<Word<'s>> {
        self.0.next()
    }

    /// Takes the next word if it is this sign (or `in`).
    pub(super) fn take(&mut self, sign: &str) -> bool {
        let is = |word: &Word<'_>| match word {
            Word::Sign(other) => *other == sign,
            Word::Name(name) => *name == "in" && sign == "in",
            _ => false,
        };
        self.0.next_if(is).is_some()
    }
}

/// A text in quotes, with CEL's escapes but for those of bytes.
fn quoted(source: &str, quote: char) -> Result<(Word<'static>, &str), Problem> {
    let triple = [quote; 3];
    if source.starts_with(&String::from_iter(triple)) {
        return Err(unserved("a text in three quotes"));
    }
    let mut text = String::new();
    let mut chars = source[1..].char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            char if char == quote => return Ok((Word::Text(text), &source[at + 2..])),
            '\\' => text.push(match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(plain @ ('\\' | '\'' | '"' | '`' | '?')) => plain,
                other => return Err(unserved(format!("the escape \\{}", other.unwrap_or(' ')))),
            }),
            '\n' => break,
            char => text.push(char),
        }
    }
    Err(wrong("a text that doesn't end"))
}

/// A number; the `u` of one without a sign says nothing, for numbers of both kinds compare as such.
fn number(source: &str) -> Result<(Word<'static>, &str), Problem> {
    let bad = |text: &str| wrong(format!("{text:?} is no number"));
    if let Some(hex) = source.strip_prefix("0x").or(source.strip_prefix("0X")) {
        let end = hex.find(|char: char| !char.is_ascii_hexdigit());
        let (digits, after) = hex.split_at(end.unwrap_or(hex.len()));
        let number = i64::from_str_radix(digits, 16).map_err(|_| bad(source))?;
        return Ok((Word::Int(number), unsigned(after)));
    }
    let mut end = 0;
    let mut is_double = false;
    let bytes = source.as_bytes();
    while let Some(byte) = bytes.get(end) {
        let next = bytes.get(end + 1);
        match byte {
            b'0'..=b'9' => {}
            b'.' if !is_double && next.is_some_and(u8::is_ascii_digit) => is_double = true,
            b'e' | b'E' if end > 0 => {
                is_double = true;
                end += usize::from(next.is_some_and(|next| matches!(next, b'+' | b'-')));
            }
            _ => break,
        }
        end += 1;
    }
    let (digits, after) = source.split_at(end);
    match is_double {
        true => Ok((
            Word::Double(digits.parse().map_err(|_| bad(digits))?),
            after,
        )),
        false => Ok((
            Word::Int(digits.parse().map_err(|_| bad(digits))?),
            unsigned(after),
        )),
    }
}

fn unsigned(after: &str) -> &str {
    after.strip_prefix(['u', 'U']).unwrap_or(after)
}
