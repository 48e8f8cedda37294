//! Every case of `cases/*.yaml` through Envoy and through our waypoint: Envoy must do what the case
//! says, ours too, and both the same; what goes wrong is heard again, and told. First as ordinary listeners, then in tunnels as chains of the
//! graph that istiod gives a waypoint. A word picks themes by name; `--only envoy|waypoint` one proxy;
//! `--way plain|tunnel` one of the ways; `--show` tells what each proxy did with each case.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use oracle::differ::Accepted;
use oracle::run::{Court, Way};
use oracle::subject::Kind;
use oracle::theme::{self, Theme};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime.map_err(Into::into).and_then(|r| r.block_on(run())) {
        Ok((_, 0)) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error:#}\n\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// The share of cases, one in so many, in which Envoy need not tell what is right.
const ALONE: usize = 40;

/// How many cases of a run may have gone wrong once and right twice after that.
const UNSTEADY: usize = 2;

/// What the command line asks for.
struct Wanted {
    kinds: Vec<Kind>,
    ways: Vec<Way>,
    filter: Option<String>,
    show: bool,
}

async fn run() -> Result<(usize, usize)> {
    let wanted = wanted()?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let accepted = Accepted::read(&here.join("accepted-differences.yaml"))?;
    let mut themes = theme::read_all(&here.join("cases"))?;
    if let Some(filter) = &wanted.filter {
        themes.retain(|theme| theme.name.contains(filter.as_str()));
    }
    let (mut passed, mut failed) = (0, 0);
    for &way in &wanted.ways {
        let (well, badly) = hear_all(&wanted, &themes, way, &accepted).await?;
        (passed, failed) = (passed + well, failed + badly);
    }
    if wanted.kinds.len() == 2 && wanted.ways.len() == 2 && wanted.filter.is_none() {
        for entry in accepted.unused() {
            println!("  FAILED accepted-differences.yaml: nothing needs `{entry}` any more");
            failed += 1;
        }
    }
    println!("\n{passed} passed, {failed} failed");
    Ok((passed, failed))
}

async fn hear_all(
    wanted: &Wanted,
    themes: &[Theme],
    way: Way,
    accepted: &Accepted,
) -> Result<(usize, usize)> {
    let scratch = tempfile::Builder::new()
        .prefix("culvert-oracle-")
        .tempdir()?;
    let court = Court::open(themes, &wanted.kinds, way, scratch.path()).await?;
    let (mut passed, mut failed, mut alone, mut unsteady) = (0, 0, 0, 0);
    for theme in themes {
        let begun = Instant::now();
        let verdicts = court.hear(theme, accepted).await?;
        let wrong = verdicts.iter().filter(|v| !v.wrong.is_empty()).count();
        alone += verdicts.iter().filter(|v| v.alone).count();
        println!(
            "{:<6} {:<20} {:>3} of {:>3} agree {:>5.1} s  {}",
            way.name(),
            theme.name,
            verdicts.len() - wrong,
            verdicts.len(),
            begun.elapsed().as_secs_f32(),
            theme.about
        );
        for verdict in verdicts.iter().filter(|v| !v.wrong.is_empty()) {
            println!("  FAILED {}: {}", way.name(), verdict.title);
            verdict.wrong.iter().for_each(|w| println!("         {w}"));
        }
        for verdict in verdicts.iter().filter(|v| !v.unsteady.is_empty()) {
            println!("  UNSTEADY {}: {}", way.name(), verdict.title);
            verdict
                .unsteady
                .iter()
                .for_each(|w| println!("         {w}"));
            unsteady += usize::from(verdict.is_unsteady_of_ours());
        }
        for verdict in verdicts.iter().filter(|_| wanted.show) {
            println!("  {}", verdict.title);
            verdict.shown.iter().for_each(|line| println!("    {line}"));
        }
        (passed, failed) = (passed + verdicts.len() - wrong, failed + wrong);
    }
    for subject in court.subjects() {
        let name = subject.kind().name();
        match subject.ended() {
            Some(how) => {
                println!("  FAILED {name} ended during the cases: {how}");
                subject
                    .said("")
                    .iter()
                    .rev()
                    .take(12)
                    .rev()
                    .for_each(|l| println!("         {l}"));
                failed += 1;
            }
            None => passed += 1,
        }
    }
    if unsteady > UNSTEADY {
        println!(
            "  FAILED {unsteady} cases were unsteady: that is no passing moment of the machine"
        );
        failed += 1;
    }
    if wanted.filter.is_none() && alone * ALONE > passed {
        println!("  FAILED Envoy was no oracle of {alone} cases");
        failed += 1;
    }
    println!(
        "{}: {passed} passed, {failed} failed, {alone} of ours alone",
        way.name()
    );
    if std::env::var_os("CULVERT_ORACLE_KEEP").is_some() {
        println!("kept in {}", scratch.keep().display());
    }
    Ok((passed, failed))
}

fn wanted() -> Result<Wanted> {
    let mut wanted = Wanted {
        kinds: vec![Kind::Envoy, Kind::Waypoint],
        ways: vec![Way::Plain, Way::Tunnel],
        filter: None,
        show: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--only" => match words.next().as_deref() {
                Some("envoy") => wanted.kinds = vec![Kind::Envoy],
                Some("waypoint") => wanted.kinds = vec![Kind::Waypoint],
                other => bail!("--only envoy|waypoint, not {other:?}"),
            },
            "--way" => match words.next().as_deref() {
                Some("plain") => wanted.ways = vec![Way::Plain],
                Some("tunnel") => wanted.ways = vec![Way::Tunnel],
                other => bail!("--way plain|tunnel, not {other:?}"),
            },
            "--show" => wanted.show = true,
            // What `cargo test` passes on to every test program.
            flag if flag.starts_with("--") => {}
            filter => wanted.filter = Some(filter.to_owned()),
        }
    }
    Ok(wanted)
}
