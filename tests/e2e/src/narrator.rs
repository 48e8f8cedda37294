//! How a story is told: to a person with chapters, commands and evidence; to a test's log with
//! nothing but the commands. Colours only where a terminal shows them.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

/// Longest piece of a command's output that is shown, in lines.
const MAX_LINES: usize = 24;

/// Tells a story, or keeps quiet.
#[derive(Clone, Copy, Debug)]
pub struct Narrator {
    aloud: bool,
    colors: bool,
    start: Instant,
}

impl Narrator {
    /// For a person at a terminal, or reading a log later.
    #[must_use]
    pub fn aloud() -> Self {
        let colors = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            aloud: true,
            colors,
            start: Instant::now(),
        }
    }

    /// For tests: the assertion speaks.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            aloud: false,
            colors: false,
            start: Instant::now(),
        }
    }

    /// A new part of the story.
    pub fn chapter(&self, title: &str) {
        self.print(&format!(
            "\n{}",
            self.styled("1;36", &format!("━━ {title}"))
        ));
    }

    /// What is about to happen, and why.
    pub fn say(&self, text: &str) {
        self.print(text);
    }

    /// A command, as the reader could type it.
    pub fn command(&self, line: &str) {
        self.print(&self.styled("1", &format!("  $ {line}")));
    }

    /// What a command printed; long output is cut, and says so.
    pub fn output(&self, text: &str) {
        let lines: Vec<&str> = text.trim_end().lines().collect();
        for line in lines.iter().take(MAX_LINES) {
            self.print(&format!("    {line}"));
        }
        if lines.len() > MAX_LINES {
            self.print(&format!("    … and {} lines more", lines.len() - MAX_LINES));
        }
    }

    /// Something seen, not claimed.
    pub fn evidence(&self, text: &str) {
        self.print(&format!("  {} {text}", self.styled("1;32", "✔")));
    }

    /// Something that could not be shown here, and why.
    pub fn left_out(&self, text: &str) {
        self.print(&format!("  {} {text}", self.styled("33", "–")));
    }

    /// One more thing done of a long step.
    pub fn progress(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        self.print(&self.styled(
            "2",
            &format!("  {:>3}:{:02} {text}", seconds / 60, seconds % 60),
        ));
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.colors {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn print(&self, line: &str) {
        if self.aloud {
            let mut out = stdout().lock();
            // A reader who left early is no reason to leave a cluster half made.
            let _ = writeln!(out, "{line}");
            let _ = out.flush();
        }
    }
}
