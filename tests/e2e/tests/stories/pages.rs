//! The pages of `docs/stories` are followed by the letter, as a reader would: what they say is what is.

use std::time::Instant;

use anyhow::{Result, bail};
use e2e::page;

use crate::cases::Play;

/// Follows every page that is for this control plane, and goes on where one fails.
pub(crate) fn all(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let mut wrong = Vec::new();
    for page in page::all()? {
        if page.under.is_some_and(|control| control != stage.control()) {
            continue;
        }
        let begun = Instant::now();
        match page.follow(stage) {
            Ok(()) => println!("    {} ({:.1} s)", page.name, begun.elapsed().as_secs_f32()),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n    "))
}
