//! The house rules that no compiler checks, as one command: how files begin, how long they are, what
//! they are called, which words may not stand in them, and that links in documents lead somewhere.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// Lines a source file may have without saying why it has more.
const LINES: usize = 400;

/// What a longer file says in its opening comment, followed by the reason.
const REASON: &str = "Long because";

/// File names that say nothing of what is in the file.
const EMPTY_NAMES: &[&str] = &[
    "common.rs",
    "helpers.rs",
    "misc.rs",
    "mod.rs",
    "util.rs",
    "utils.rs",
];

/// Words that must not be committed. Each is put together here, so that this file passes too.
const WORDS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "finish it, or file an issue"),
    (concat!("TO", "DO"), "finish it, or file an issue"),
    (
        concat!("crates", ".io"),
        "no registry is named in the project",
    ),
    (
        concat!("deb.", "debian.org"),
        "no registry is named in the project",
    ),
    (
        concat!("proxy.", "golang.org"),
        "no registry is named in the project",
    ),
    (
        concat!("pypi", ".org"),
        "no registry is named in the project",
    ),
    (
        concat!("npmjs", ".org"),
        "no registry is named in the project",
    ),
];

/// Cores decide and do no IO: these files import none of [`IO`].
const CORES: &[&str] = &[
    "mesh/src/address",
    "mesh/src/balance",
    "mesh/src/identity",
    "mesh/src/policy",
    "mesh/src/workload",
    "mesh/src/file/convert",
    "mesh/src/file/format",
    "mesh/src/world.rs",
    "mesh/src/world/change",
    "mesh/src/world/endpoints",
    "mesh/src/world/route",
    "mesh/src/world/vips",
    "mesh/src/xds/backoff",
    "mesh/src/xds/subscription",
    "control/src/translate",
    "waypoint/src/authz",
    "waypoint/src/cors",
    "waypoint/src/fault",
    "waypoint/src/grpc",
    "waypoint/src/head",
    "waypoint/src/intake",
    "waypoint/src/jwt",
    "waypoint/src/model/authz",
    "waypoint/src/model/cluster",
    "waypoint/src/model/endpoint",
    "waypoint/src/model/format",
    "waypoint/src/model/http",
    "waypoint/src/model/jwt",
    "waypoint/src/model/listener",
    "waypoint/src/model/log",
    "waypoint/src/model/policy",
    "waypoint/src/model/route",
    "waypoint/src/model/rate_limit",
    "waypoint/src/model/text",
    "waypoint/src/model/tls",
    "waypoint/src/path",
    "waypoint/src/policy",
    "waypoint/src/rate_limit",
    "waypoint/src/route",
    "waypoint/src/source/store",
    "waypoint/src/upstream/balance",
    "waypoint/src/upstream/outlier",
];

const IO: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime::now",
];

/// The constructor of a permit that rests on a decision outside `mesh::policy`: who may call it.
const WAYPOINT_PERMIT: &str = concat!("by_way", "point(");
const MAY_PERMIT: &[&str] = &["mesh/src/policy", "mesh/src/hbone", "tests/", "waypoint/"];

/// Checks every file that git tracks.
pub(crate) fn run(project: &Project) -> Result<()> {
    let listed = project
        .command("git")
        .args(["ls-files", "-z"])
        .output()
        .context("git could not be started")?;
    let mut broken = String::new();
    let names = String::from_utf8(listed.stdout).context("git names a file that is not UTF-8")?;
    let mut checked = 0;
    for name in names.split_terminator('\0') {
        let path = project.root.join(name);
        // A link, a picture, a file that was just removed.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        checked += 1;
        for problem in problems(name, &text) {
            writeln!(broken, "  {name}: {problem}")?;
        }
        if name.ends_with(".md") {
            for link in dead_links(&path, &text) {
                writeln!(broken, "  {name}: the link {link} leads nowhere")?;
            }
        }
    }
    if broken.is_empty() {
        println!("tidy: {checked} files follow the house rules");
        return Ok(());
    }
    bail!("house rules (CONTRIBUTING.md):\n{broken}")
}

fn problems(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let locked = name.ends_with(".lock") || name.ends_with(".sum");
    if !locked {
        for (word, instead) in WORDS {
            if let Some(line) = text.lines().position(|line| line.contains(word)) {
                found.push(format!("line {} says {word}: {instead}", line + 1));
            }
        }
    }
    if !name.ends_with(".rs") {
        return found;
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    if EMPTY_NAMES.contains(&file) {
        found.push("the name says nothing of what is inside".into());
    }
    if !text.starts_with("//!") {
        found.push("line 1 does not say (`//!`) what it is and why".into());
    }
    let lines = text.lines().count();
    let head = text.lines().take_while(|line| line.starts_with("//!"));
    if lines > LINES && !head.into_iter().any(|line| line.contains(REASON)) {
        found.push(format!(
            "{lines} lines: split it by idea, or open with `{REASON} …`"
        ));
    }
    if text.contains(WAYPOINT_PERMIT) && !MAY_PERMIT.iter().any(|may| name.starts_with(may)) {
        found.push("only a waypoint makes a permit by its own decision".into());
    }
    if CORES.iter().any(|core| name.starts_with(core)) && !name.contains("tests") {
        let code = text.split("#[cfg(test)]").next().unwrap_or(text);
        for import in IO {
            if code
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(import))
            {
                found.push(format!("a core uses {import}: cores decide, shells do IO"));
            }
        }
    }
    found
}

/// Relative links of a Markdown file whose target does not exist.
fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let folder = path.parent().unwrap_or(path);
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.contains(' '))
        .filter(|link| !folder.join(link).exists())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_offender() {
        let first =
            |name: &str, text: &str| problems(name, text).first().cloned().unwrap_or_default();
        assert!(first("a/utils.rs", "//! x").contains("says nothing"));
        assert!(first("a/b.rs", "fn main() {}").contains("line 1"));
        assert!(first("a/b.rs", &format!("//! x\n{}", "\n".repeat(LINES))).contains("split it"));
        assert!(first("a.md", concat!("a TO", "DO")).contains("finish it"));
        assert!(first("mesh/src/policy.rs", "//! x\nuse tokio::time;").contains("cores decide"));
        let permit = format!("//! x\nPermit::{WAYPOINT_PERMIT})");
        assert!(first("ztunnel/src/a.rs", &permit).contains("only a waypoint"));
        assert_eq!(first("waypoint/src/a.rs", &permit), "");
        assert_eq!(first("a/b.rs", "//! x\nfn main() {}"), "");
        assert_eq!(
            first(
                "a/b.rs",
                &format!("//! Long because y.\n{}", "\n".repeat(LINES))
            ),
            ""
        );
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let text = "[a](src/main.rs) [b](src/none.rs#x) [c](https://example.com/none)";
        assert_eq!(dead_links(&here, text), ["src/none.rs"]);
    }
}
