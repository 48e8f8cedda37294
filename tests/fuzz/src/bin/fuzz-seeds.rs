//! Writes every target's seeds into a folder, `DIR/TARGET/NUMBER`, as libFuzzer reads them.

use std::path::PathBuf;
use std::process::ExitCode;

use fuzz::TARGETS;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz-seeds DIR");
        return ExitCode::from(2);
    };
    for target in TARGETS {
        let folder = folder.join(target.name);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let mut seeds = (target.seeds)().into_iter().enumerate();
            seeds.try_for_each(|(number, seed)| {
                std::fs::write(folder.join(format!("{number:04}")), seed)
            })
        });
        if let Err(error) = written {
            eprintln!("fuzz-seeds: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
