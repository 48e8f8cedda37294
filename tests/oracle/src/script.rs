//! How a backend answers, written by the request itself in the header `x-script`: steps for the
//! attempts of one request, separated by `|`, the last for all further ones; within a step, words
//! separated by `;`.
//!
//! | word | the backend |
//! |---|---|
//! | `503` | answers with this status |
//! | `h=NAME: VALUE` | adds a header |
//! | `t=NAME: VALUE` | ends with a trailer |
//! | `body=TEXT` | has this body instead of its name |
//! | `frames=TEXT,TEXT` | has gRPC messages as its body |
//! | `chop=N` | sends its body in frames of N bytes |
//! | `size=N` | has a body of N bytes |
//! | `delay=MS` | waits before it answers |
//! | `stall=MS` | waits between head and body |
//! | `close` | closes the connection without an answer (resets the stream in HTTP/2) |
//! | `refuse` | refuses the stream (HTTP/2) |
//! | `break` | breaks off in the middle of the body |
//! | `early` | answers before it has read the request's body |

use std::time::Duration;

/// One attempt's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    pub(crate) frames: Option<Vec<String>>,
    pub(crate) chop: Option<usize>,
    pub(crate) size: Option<usize>,
    pub(crate) delay: Duration,
    pub(crate) stall: Duration,
    pub(crate) ending: Ending,
    pub(crate) early: bool,
}

/// How the answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Whole,
    Close,
    Refuse,
    Break,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            trailers: Vec::new(),
            body: None,
            frames: None,
            chop: None,
            size: None,
            delay: Duration::ZERO,
            stall: Duration::ZERO,
            ending: Ending::Whole,
            early: false,
        }
    }
}

/// The step for the attempt with this number, from 0.
pub(crate) fn step(script: &str, attempt: usize) -> Result<Step, String> {
    let steps: Vec<&str> = script.split('|').collect();
    parse(steps[attempt.min(steps.len() - 1)])
}

fn parse(text: &str) -> Result<Step, String> {
    let mut step = Step::default();
    for word in text.split(';').map(str::trim).filter(|w| !w.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse().map_err(|_| format!("{word}: no number"));
        let pair = || {
            let (name, value) = value.split_once(':').ok_or(format!("{word}: no colon"))?;
            Ok::<_, String>((name.trim().to_owned(), value.trim().to_owned()))
        };
        match name {
            "h" => step.headers.push(pair()?),
            "t" => step.trailers.push(pair()?),
            "body" => step.body = Some(value.to_owned()),
            "frames" => step.frames = Some(value.split(',').map(str::to_owned).collect()),
            "chop" => step.chop = Some(number()?),
            "size" => step.size = Some(number()?),
            "delay" => step.delay = Duration::from_millis(number()? as u64),
            "stall" => step.stall = Duration::from_millis(number()? as u64),
            "close" => step.ending = Ending::Close,
            "refuse" => step.ending = Ending::Refuse,
            "break" => step.ending = Ending::Break,
            "early" => step.early = true,
            status => {
                step.status = status
                    .parse()
                    .map_err(|_| format!("x-script: unknown word {word}"))?;
            }
        }
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_for_all_further_attempts() {
        let script = "503; h=x-a: b:c|close|200;body=late;delay=5";
        let first = step(script, 0).unwrap();
        assert_eq!(first.status, 503);
        assert_eq!(first.headers, [("x-a".to_owned(), "b:c".to_owned())]);
        assert_eq!(step(script, 1).unwrap().ending, Ending::Close);
        assert_eq!(step(script, 2), step(script, 9));
        assert_eq!(step(script, 2).unwrap().body.as_deref(), Some("late"));
        assert!(step("sometimes", 0).is_err());
        assert!(step("delay=long", 0).is_err());
    }
}
