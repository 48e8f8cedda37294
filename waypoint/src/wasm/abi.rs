//! The functions that a module may call, by their names: proxy-wasm's, and as much of WASI as a
//! module needs to run at all. Each reads what it is asked from the module's memory, does it, and says
//! how that went; nothing here waits, and none of it calls a plugin but to have memory from it.

mod grpc;
mod maps;
mod process;
mod shared;
mod streams;
mod wasi;

use std::collections::BTreeSet;

use wasmtime::{Caller, Linker, Val};

use super::engine::engine;
use super::state::State;

/// Bytes of one text that a plugin may have written to the log.
const LONGEST_LINE: usize = 16 << 10;

/// How a call went, by proxy-wasm's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// What a function of ours comes to.
type Done = Result<(), Status>;

/// The plugin that called, with its memory.
type Guest<'g> = Caller<'g, State>;

/// Where functions are put; those that a plugin may not call are left out.
struct Functions<'f> {
    linker: Linker<State>,
    allowed: Option<&'f BTreeSet<Box<str>>>,
}

/// The functions that a plugin may call; all, where nothing is said of which.
///
/// # Errors
/// The machine can't be made.
pub(super) fn linker(allowed: Option<&BTreeSet<Box<str>>>) -> Result<Linker<State>, String> {
    let mut functions = Functions {
        linker: Linker::new(engine()?),
        allowed,
    };
    let put = |functions: &mut Functions<'_>| -> wasmtime::Result<()> {
        maps::put(functions)?;
        streams::put(functions)?;
        process::put(functions)?;
        shared::put(functions)?;
        grpc::put(functions)?;
        wasi::put(functions)
    };
    put(&mut functions).map_err(|error| format!("{error:#}"))?;
    Ok(functions.linker)
}

/// Has the functions that `module` wants and may not call answer that they failed, as Envoy's do.
pub(super) fn restrict(
    linker: &mut Linker<State>,
    module: &wasmtime::Module,
) -> Result<(), String> {
    for import in module.imports() {
        let Some(kind) = import.ty().func().cloned() else {
            continue;
        };
        let name = import.name().to_owned();
        let results = kind.results().len();
        let put = linker.func_new(import.module(), import.name(), kind, move |caller, _, out| {
            let plugin = &caller.data().settings.name;
            tracing::warn!(%plugin, function = %name, "a plugin called a function that it may not");
            if results == 1 {
                out[0] = Val::I32(Status::InternalFailure as i32);
            }
            Ok(())
        });
        // It is there already where the plugin may call it.
        drop(put);
    }
    Ok(())
}

impl Functions<'_> {
    fn env<P, R>(
        &mut self,
        name: &str,
        function: impl wasmtime::IntoFunc<State, P, R>,
    ) -> wasmtime::Result<()> {
        self.of("env", name, function)
    }

    fn of<P, R>(
        &mut self,
        module: &str,
        name: &str,
        function: impl wasmtime::IntoFunc<State, P, R>,
    ) -> wasmtime::Result<()> {
        if self.allowed.is_none_or(|allowed| allowed.contains(name)) {
            self.linker.func_wrap(module, name, function)?;
        }
        Ok(())
    }
}

/// How a call went, as the plugin hears it.
fn told(done: Done) -> i32 {
    match done {
        Ok(()) => Status::Ok as i32,
        Err(status) => status as i32,
    }
}

/// Bytes of the plugin's memory.
fn read(guest: &Guest<'_>, at: u32, length: u32) -> Result<Vec<u8>, Status> {
    Ok(look(guest, at, length)?.to_vec())
}

/// The same, for a moment.
fn look<'g>(guest: &'g Guest<'_>, at: u32, length: u32) -> Result<&'g [u8], Status> {
    let memory = guest.data().memory.ok_or(Status::InternalFailure)?;
    let all = memory.data(guest);
    let end = (at as usize).checked_add(length as usize);
    let part = end.and_then(|end| all.get(at as usize..end));
    part.ok_or(Status::InvalidMemoryAccess)
}

fn text(guest: &Guest<'_>, at: u32, length: u32) -> Result<String, Status> {
    let bytes = look(guest, at, length)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Writes into the plugin's memory.
fn write(guest: &mut Guest<'_>, at: u32, bytes: &[u8]) -> Done {
    let memory = guest.data().memory.ok_or(Status::InternalFailure)?;
    let written = memory.write(guest, at as usize, bytes);
    written.map_err(|_| Status::InvalidMemoryAccess)
}

fn write_number(guest: &mut Guest<'_>, at: u32, number: u32) -> Done {
    write(guest, at, &number.to_le_bytes())
}

/// Gives the plugin bytes, in memory that it makes for them: where they are and how many.
fn give(guest: &mut Guest<'_>, bytes: &[u8], at: u32, length_at: u32) -> Done {
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
    let mut place = 0;
    if length > 0 {
        let allocate = guest.data().allocate.ok_or(Status::InternalFailure)?;
        let mut made = [Val::I32(0)];
        let asked = [Val::I32(length.cast_signed())];
        let called = allocate.call(&mut *guest, &asked, &mut made);
        called.map_err(|_| Status::InvalidMemoryAccess)?;
        place = made[0].i32().unwrap_or(0).cast_unsigned();
        if place == 0 {
            return Err(Status::InvalidMemoryAccess);
        }
        write(guest, place, bytes)?;
    }
    write_number(guest, at, place)?;
    write_number(guest, length_at, length)
}
