//! As much of WASI as the run time of a language needs to start: what is printed goes to the log, there
//! are clocks, random bytes and environment variables. There are no files and no network: whoever asks
//! for them hears that there are none.

use rand::RngCore;

use super::process::{log, now};
use super::{Functions, Guest, LONGEST_LINE, Status, look, write, write_number};

/// WASI's error numbers.
const BAD_DESCRIPTOR: i32 = 8;
const FAULT: i32 = 21;
const INVALID: i32 = 28;
const NOT_SUPPORTED: i32 = 58;

/// Random bytes that are given at a time.
const MOST_RANDOM: u32 = 64 << 10;
/// Parts of one text that are written at a time.
const MOST_PARTS: u32 = 1024;

pub(super) fn put(functions: &mut Functions<'_>) -> wasmtime::Result<()> {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        into(functions, module)?;
    }
    Ok(())
}

fn into(functions: &mut Functions<'_>, module: &str) -> wasmtime::Result<()> {
    functions.of(
        module,
        "fd_write",
        |mut guest: Guest<'_>, to: i32, parts: u32, count: u32, written_at: u32| {
            errno(print(&mut guest, to, parts, count, written_at))
        },
    )?;
    functions.of(
        module,
        "clock_time_get",
        |mut guest: Guest<'_>, clock: i32, _: i64, at: u32| match clock {
            // Seconds go by alike on both.
            0 | 1 => errno(write(&mut guest, at, &now().to_le_bytes())),
            _ => NOT_SUPPORTED,
        },
    )?;
    functions.of(
        module,
        "clock_res_get",
        |mut guest: Guest<'_>, _: i32, at: u32| errno(write(&mut guest, at, &1_u64.to_le_bytes())),
    )?;
    functions.of(
        module,
        "random_get",
        |mut guest: Guest<'_>, at: u32, length: u32| {
            if length > MOST_RANDOM {
                return INVALID;
            }
            let mut bytes = vec![0; length as usize];
            rand::rng().fill_bytes(&mut bytes);
            errno(write(&mut guest, at, &bytes))
        },
    )?;
    functions.of(
        module,
        "environ_sizes_get",
        |mut guest: Guest<'_>, count_at: u32, size_at: u32| {
            let variables = variables(&guest);
            let size: usize = variables.iter().map(Vec::len).sum();
            let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            errno(
                write_number(&mut guest, count_at, number(variables.len()))
                    .and_then(|()| write_number(&mut guest, size_at, number(size))),
            )
        },
    )?;
    functions.of(
        module,
        "environ_get",
        |mut guest: Guest<'_>, mut places: u32, mut at: u32| {
            for variable in variables(&guest) {
                let written = write_number(&mut guest, places, at)
                    .and_then(|()| write(&mut guest, at, &variable));
                if written.is_err() {
                    return FAULT;
                }
                places = places.wrapping_add(4);
                at = at.wrapping_add(u32::try_from(variable.len()).unwrap_or(u32::MAX));
            }
            0
        },
    )?;
    functions.of(
        module,
        "args_sizes_get",
        |mut guest: Guest<'_>, count_at: u32, size_at: u32| {
            errno(
                write_number(&mut guest, count_at, 0)
                    .and_then(|()| write_number(&mut guest, size_at, 0)),
            )
        },
    )?;
    functions.of(module, "args_get", |_: Guest<'_>, _: u32, _: u32| 0)?;
    functions.of(module, "sched_yield", |_: Guest<'_>| 0)?;
    functions.of(
        module,
        "proc_exit",
        |_: Guest<'_>, code: i32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg(format!("it exited with {code}")))
        },
    )?;
    files(functions, module)
}

/// There are none.
fn files(functions: &mut Functions<'_>, module: &str) -> wasmtime::Result<()> {
    functions.of(module, "fd_close", |_: Guest<'_>, _: i32| BAD_DESCRIPTOR)?;
    functions.of(
        module,
        "fd_read",
        |_: Guest<'_>, _: i32, _: u32, _: u32, _: u32| BAD_DESCRIPTOR,
    )?;
    functions.of(
        module,
        "fd_seek",
        |_: Guest<'_>, _: i32, _: i64, _: i32, _: u32| BAD_DESCRIPTOR,
    )?;
    functions.of(
        module,
        "fd_fdstat_get",
        |mut guest: Guest<'_>, descriptor: i32, at: u32| match descriptor {
            // A character device that can be written to.
            1 | 2 => {
                let mut stat = [0; 24];
                stat[0] = 2;
                stat[8] = 64;
                errno(write(&mut guest, at, &stat))
            }
            _ => BAD_DESCRIPTOR,
        },
    )?;
    functions.of(
        module,
        "fd_fdstat_set_flags",
        |_: Guest<'_>, _: i32, _: i32| BAD_DESCRIPTOR,
    )?;
    for name in ["fd_prestat_get", "fd_filestat_get"] {
        functions.of(module, name, |_: Guest<'_>, _: i32, _: u32| BAD_DESCRIPTOR)?;
    }
    functions.of(
        module,
        "fd_prestat_dir_name",
        |_: Guest<'_>, _: i32, _: u32, _: u32| BAD_DESCRIPTOR,
    )?;
    functions.of(
        module,
        "path_open",
        |_: Guest<'_>, _: i32, _: i32, _: u32, _: u32, _: i32, _: i64, _: i64, _: i32, _: u32| {
            BAD_DESCRIPTOR
        },
    )?;
    for name in [
        "path_create_directory",
        "path_remove_directory",
        "path_unlink_file",
    ] {
        functions.of(module, name, |_: Guest<'_>, _: i32, _: u32, _: u32| {
            BAD_DESCRIPTOR
        })?;
    }
    functions.of(
        module,
        "path_filestat_get",
        |_: Guest<'_>, _: i32, _: i32, _: u32, _: u32, _: u32| BAD_DESCRIPTOR,
    )?;
    functions.of(
        module,
        "poll_oneoff",
        |_: Guest<'_>, _: u32, _: u32, _: u32, _: u32| NOT_SUPPORTED,
    )
}

fn errno(done: Result<(), Status>) -> i32 {
    match done {
        Ok(()) => 0,
        Err(_) => FAULT,
    }
}

/// Writes what is printed to the log, line by line.
fn print(
    guest: &mut Guest<'_>,
    to: i32,
    parts: u32,
    count: u32,
    written_at: u32,
) -> Result<(), Status> {
    if !matches!(to, 1 | 2) || count > MOST_PARTS {
        return Err(Status::BadArgument);
    }
    let mut all = Vec::new();
    for part in 0..count {
        let place = look(guest, parts.wrapping_add(part * 8), 8)?;
        let number = |at: usize| {
            let bytes = [place[at], place[at + 1], place[at + 2], place[at + 3]];
            u32::from_le_bytes(bytes)
        };
        let text = look(guest, number(0), number(4))?;
        let room = LONGEST_LINE - all.len();
        all.extend_from_slice(&text[..text.len().min(room)]);
        // The rest isn't written, and it hears so: parts may lie over each other, and be all of its
        // memory each.
        if text.len() > room {
            break;
        }
    }
    let state = guest.data_mut();
    state.line.extend_from_slice(&all);
    let level = if to == 1 { 2 } else { 4 };
    while let Some(end) = state.line.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = state.line.drain(..=end).collect();
        log(&state.settings.name, level, line.trim_ascii_end());
    }
    if state.line.len() > LONGEST_LINE {
        let line = std::mem::take(&mut state.line);
        log(&state.settings.name, level, &line);
    }
    write_number(
        guest,
        written_at,
        u32::try_from(all.len()).unwrap_or(u32::MAX),
    )
}

/// Environment variables as a program gets them, each with a zero behind it.
fn variables(guest: &Guest<'_>) -> Vec<Vec<u8>> {
    let settings = &guest.data().settings;
    let own = settings.environment.iter();
    let own = own.map(|(name, value)| format!("{name}={value}\0").into_bytes());
    let host = settings.host_environment.iter().filter_map(|name| {
        let value = std::env::var(&**name).ok()?;
        Some(format!("{name}={value}\0").into_bytes())
    });
    host.chain(own).collect()
}
