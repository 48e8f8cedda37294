//! The pages of `docs/stories`, followed as a reader follows them: each block of commands is run by a
//! shell where the project is checked out, and must show what the page says that it shows.
//!
//! A block of ```` ```sh ```` is commands. A block of ```` ```text ```` behind it is what they show: its
//! lines, in this order, among others; `…` stands for any word or part of one. Such commands are asked
//! again until they show it, because a change takes a moment, unless it is a block of ```` ```text at
//! once ````. Commands with nothing behind them are run once and must end well. A page that begins with
//! `<!-- under istiod -->` is not for another control plane.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster::{Tool, Tools};

use crate::Control;
use crate::process;
use crate::stage::{Stage, root};
use crate::until::until;

/// Where the pages are, from the checkout's root.
pub const FOLDER: &str = "docs/stories";
/// How long one block may take.
const BLOCK: Duration = Duration::from_secs(200);
/// How long until a block shows what the page says.
const SHOWN: Duration = Duration::from_secs(60);

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The commands.
    pub script: String,
    /// What they show; `None` where the page does not say.
    pub shows: Option<String>,
    /// Whether they show it when they are run once.
    pub at_once: bool,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its file's name, without the ending.
    pub name: String,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// The control plane that it is for, where it is not for both.
    pub under: Option<Control>,
}

/// All pages, in the order in which they build upon one another.
///
/// # Errors
/// When one of them can't be read.
pub fn all() -> Result<Vec<Page>> {
    let folder = root().join(FOLDER);
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut pages = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(Page::read(&path).with_context(|| path.display().to_string())?);
        }
    }
    pages.sort_by_key(|page| (page.number(), page.name.clone()));
    Ok(pages)
}

impl Page {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let under = text
            .strip_prefix("<!-- under ")
            .and_then(|rest| rest.split_once(" -->"));
        let under = under
            .map(|(control, _)| control.parse().map_err(anyhow::Error::msg))
            .transpose()?;
        let steps = steps(&text)?;
        ensure!(
            steps.iter().any(|step| step.shows.is_some()),
            "it shows nothing: following it proves nothing"
        );
        let name = path.file_stem().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            steps,
            under,
        })
    }

    /// 10 of `s10-jason`.
    fn number(&self) -> u32 {
        let digits = self.name.trim_start_matches('s');
        let end = digits.find(|c: char| !c.is_ascii_digit());
        digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
    }

    /// Follows it to its end.
    ///
    /// # Errors
    /// Names the commands that failed or showed something else.
    pub fn follow(&self, stage: &Stage) -> Result<()> {
        let shell = Shell::new(stage)?;
        for step in &self.steps {
            step.take(&shell)
                .with_context(|| format!("{}: {}", self.name, step.script.trim_end()))?;
        }
        Ok(())
    }
}

/// The blocks of a page, in order.
///
/// # Errors
/// When a block has no end, or an output no commands before it.
pub fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let mut block = String::new();
        loop {
            match lines.next() {
                Some("```") => break,
                Some(line) => block += &format!("{line}\n"),
                None => bail!("a block of {kind:?} has no end"),
            }
        }
        match kind {
            "sh" => steps.push(Step {
                script: block,
                shows: None,
                at_once: false,
            }),
            "text" | "text at once" => {
                let before = steps
                    .last_mut()
                    .filter(|step| step.shows.is_none())
                    .context("an output without commands before it")?;
                before.shows = Some(block);
                before.at_once = kind != "text";
            }
            _ => {}
        }
    }
    Ok(steps)
}

impl Step {
    fn take(&self, shell: &Shell) -> Result<()> {
        let Some(shows) = &self.shows else {
            let (code, said) = shell.run(&self.script)?;
            ensure!(code == Some(0), "ended with {code:?}: {said}");
            return Ok(());
        };
        let patience = if self.at_once { Duration::ZERO } else { SHOWN };
        until("what the page shows", patience, || {
            let (_, said) = shell.run(&self.script)?;
            ensure!(is_shown(shows, &said), "it showed: {said}");
            Ok(())
        })
    }
}

/// Whether the lines of `wanted` are among those of `said`, in their order.
fn is_shown(wanted: &str, said: &str) -> bool {
    let mut said = said.lines();
    wanted
        .lines()
        .filter(|line| !line.trim().is_empty())
        .all(|line| said.any(|found| fits(line.trim(), found.trim())))
}

/// Runs of blanks count as one; `…` stands for anything without blanks and quotes.
fn fits(wanted: &str, found: &str) -> bool {
    let (mut wanted, mut found) = (wanted.split_whitespace(), found.split_whitespace());
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if word_fits(wanted, found) => {}
            _ => return false,
        }
    }
}

fn word_fits(wanted: &str, found: &str) -> bool {
    let Some((before, after)) = wanted.split_once('…') else {
        return wanted == found;
    };
    let Some(rest) = found.strip_prefix(before) else {
        return false;
    };
    let longest = rest.find('"').unwrap_or(rest.len());
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.take_while(|end| *end <= longest)
        .any(|end| word_fits(after, &rest[end..]))
}

/// A shell with the cluster's kubeconfig and programs, as a reader has it.
struct Shell {
    kubeconfig: PathBuf,
    programs: tempfile::TempDir,
}

impl Shell {
    fn new(stage: &Stage) -> Result<Self> {
        let programs = tempfile::tempdir().context("a folder for kubectl, helm and istioctl")?;
        for tool in [Tool::Kubectl, Tool::Helm, Tool::Istioctl] {
            if let Some(program) = Tools::from_env().find(tool) {
                symlink(&program, programs.path().join(tool.program()))
                    .with_context(|| program.display().to_string())?;
            }
        }
        Ok(Self {
            kubeconfig: stage.kubeconfig().to_owned(),
            programs,
        })
    }

    /// How the commands ended, and what they wrote.
    fn run(&self, script: &str) -> Result<(Option<i32>, String)> {
        let here = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PATH", format!("{}:{here}", self.programs.path().display()))
            .current_dir(root());
        let ended = process::run(&mut command, BLOCK)?;
        Ok((ended.code, ended.stdout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_what_they_show() {
        let page = "# A\n```sh\necho a\n```\nwords\n```sh\necho b\n```\nshows\n```text\nb\n```\n```yaml\nx: 1\n```\n";
        let found = steps(page).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].script.as_str(), &found[0].shows),
            ("echo a\n", &None)
        );
        assert_eq!(found[1].shows.as_deref(), Some("b\n"));
        assert!(steps("```text\nb\n```\n").is_err(), "nothing shows it");
        assert!(steps("```sh\necho\n").is_err(), "no end");
    }

    #[test]
    fn what_is_shown_fits_line_by_line() {
        let said = "NAME       READY\nwaypoint   1/1\n{\"total\":{\"200 reviews-v1-abc\":903,\"200 reviews-v2-d\":97}}\n";
        assert!(is_shown("waypoint 1/1", said));
        assert!(is_shown("NAME READY\n\nwaypoint …/1\n", said));
        assert!(
            !is_shown("waypoint 1/1\nNAME READY", said),
            "in another order"
        );
        assert!(!is_shown("waypoint 2/2", said));
        let total = "{\"total\":{\"200 reviews-v1-…\":…,\"200 reviews-v2-…\":…}}";
        assert!(is_shown(total, said));
        assert!(!is_shown(
            total,
            &said.replace("}}", ",\"200 reviews-v3-e\":1}}")
        ));
    }

    #[test]
    fn every_page_is_read_in_its_order() {
        let pages = all().unwrap();
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        assert_eq!(names.first(), Some(&"s1-outside-the-mesh"));
        let at = |name| names.iter().position(|found| *found == name).unwrap();
        assert!(at("s5-methods") < at("s10-jason"), "{names:?}");
        assert_eq!(pages[at("s16-under-istiod")].under, Some(Control::Istiod));
        assert_eq!(pages[at("s10-jason")].under, None);
    }
}
