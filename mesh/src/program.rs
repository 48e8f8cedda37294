//! How a program of Culvert's begins: its command line and environment are read once, and what makes no
//! sense there is answered in one line that names the flag, its variable and the likely cause.

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use tracing_subscriber::EnvFilter;

/// Why a command line was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not an error: help or the version was asked for.
    #[error("{0}")]
    Information(String),
    /// A flag or a variable makes no sense.
    #[error("{0}")]
    Bad(String),
}

/// Reads `arguments` (the program's name first) and the environment.
///
/// # Errors
/// The first value that makes no sense, in one line; or help where it was asked for.
pub fn read<F: Parser, A: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
) -> Result<F, Refused> {
    F::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Refused::Information(error.to_string())
        }
        _ => Refused::Bad(in_one_line(&F::command(), &error)),
    })
}

/// Does a program's work with its flags. Exits with 2 where they were refused and with 1 where the work
/// ended in an error, which is the last line on stderr.
pub fn run<F, E: Display>(
    name: &str,
    flags: Result<F, Refused>,
    work: impl FnOnce(F) -> Result<(), E>,
) -> ExitCode {
    let flags = match flags {
        Ok(flags) => flags,
        Err(Refused::Information(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Refused::Bad(line)) => {
            eprintln!("{name}: {line}");
            return ExitCode::from(2);
        }
    };
    match work(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Takes levels by target, as tracing's filters are written, and leaves them as they are.
///
/// # Errors
/// In words that show the right form.
pub fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}; it should look like info or info,mesh=debug"
        )),
    }
}

/// Clap's many lines as one.
fn in_one_line(command: &clap::Command, error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split_whitespace().next().unwrap_or_default();
    let named = match variable(command, flag) {
        Some(variable) => format!("{flag} ({variable})"),
        None => flag.to_owned(),
    };
    match (error.kind(), context(ContextKind::InvalidValue)) {
        (ErrorKind::ValueValidation, Some(value)) => {
            let cause = std::error::Error::source(error)
                .map_or_else(|| "not understood".to_owned(), ToString::to_string);
            format!("{named} is {value:?}: {cause}")
        }
        (ErrorKind::InvalidValue, Some(value)) => {
            let valid = context(ContextKind::ValidValue).unwrap_or_default();
            format!("{named} is {value:?}: it can be one of {valid}")
        }
        (ErrorKind::UnknownArgument, _) => {
            let name = command.get_name();
            format!("{flag} is not a flag of {name}: see {name} --help")
        }
        _ => {
            let text = error.to_string();
            let lines = text.lines().map(str::trim);
            let said: Vec<_> = lines
                .filter(|line| !line.is_empty())
                .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
                .collect();
            said.join(" ").trim_start_matches("error: ").to_owned()
        }
    }
}

/// The variable of a flag, of the program or of one of its commands.
fn variable(command: &clap::Command, flag: &str) -> Option<String> {
    let long = flag.strip_prefix("--")?;
    let of_own = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(long))
        .and_then(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()));
    of_own.or_else(|| {
        command
            .get_subcommands()
            .find_map(|within| variable(within, flag))
    })
}

#[cfg(test)]
mod tests {
    use clap::{Subcommand, ValueEnum};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "program", version)]
    struct Flags {
        /// A number, under another name in the environment.
        #[arg(long, env = "CULVERT_TEST_THREADS", default_value = "2", global = true)]
        threads: u8,
        #[arg(long, env = "CULVERT_TEST_FORM", default_value = "plain")]
        form: Form,
        #[arg(long, default_value = "info", value_parser = log_filter)]
        log: String,
        #[command(subcommand)]
        command: Option<Command>,
    }

    #[derive(Clone, Debug, ValueEnum)]
    enum Form {
        Plain,
        Json,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Serve {
            #[arg(long, env = "CULVERT_TEST_PORT")]
            port: u16,
        },
    }

    #[test]
    fn what_makes_no_sense_is_one_line_that_names_flag_variable_and_cause() {
        for (arguments, expected) in [
            (
                &["--threads", "many"][..],
                "--threads (CULVERT_TEST_THREADS) is \"many\": invalid digit found in string",
            ),
            (
                &["--form", "xml"],
                "--form (CULVERT_TEST_FORM) is \"xml\": it can be one of plain, json",
            ),
            (
                &["--color"],
                "--color is not a flag of program: see program --help",
            ),
            (
                &["serve", "--port", "x"],
                "--port (CULVERT_TEST_PORT) is \"x\": invalid digit found in string",
            ),
            (
                &["serve"],
                "the following required arguments were not provided: --port <PORT>",
            ),
            (&["--log", "info,,=]x"], "--log is \"info,,=]x\": "),
        ] {
            let refused = read::<Flags, _>([&["program"], arguments].concat());
            let Err(Refused::Bad(line)) = refused else {
                panic!("{arguments:?} gave {refused:?}");
            };
            assert!(line.starts_with(expected), "{line}");
            assert!(!line.contains('\n'), "more than one line: {line}");
        }
        assert!(matches!(
            read::<Flags, _>(["program", "--version"]),
            Err(Refused::Information(_))
        ));
        let flags: Flags = read(["program", "serve", "--port", "7"]).unwrap();
        assert!(matches!(flags.command, Some(Command::Serve { port: 7 })));
    }

    #[test]
    fn a_program_ends_with_a_code_that_says_how() {
        let code = |flags: Result<(), Refused>, work: Result<(), &str>| {
            format!("{:?}", run("program", flags, |()| work))
        };
        let is = |code: ExitCode| format!("{code:?}");
        assert_eq!(code(Ok(()), Ok(())), is(ExitCode::SUCCESS));
        assert_eq!(code(Ok(()), Err("worked not")), is(ExitCode::FAILURE));
        let bad = Refused::Bad("no such flag".to_owned());
        assert_eq!(code(Err(bad), Ok(())), is(ExitCode::from(2)));
        let help = Refused::Information(String::new());
        assert_eq!(code(Err(help), Err("never run")), is(ExitCode::SUCCESS));
    }
}
