//! Loading: the only file that knows aya, which reads the object, makes the maps or takes the
//! pinned ones, and has the verifier look at each program.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::programs::{CgroupSockAddr, ProgramError, ProgramFd, SkLookup, SockOps};
use aya::{Ebpf, EbpfLoader};
use ebpf_contract::{Ip, MAX_PODS, Pod, SLOT_GLOBAL, Settings, Stored, map, program};
use parking_lot::Mutex;

use super::error::Error;
use super::kernel::{self, AttachTo, Map};
use super::pins::Pins;

/// The object, made by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CULVERT_KERNEL_PROGRAMS"));

/// The hooks on the cgroup tree. Those that send connections to us come last.
pub(super) const HOOKS: [(&str, AttachTo); 5] = [
    (program::SOCKOPS, AttachTo::SockOps),
    (program::GETPEERNAME4, AttachTo::GetPeerName4),
    (program::GETPEERNAME6, AttachTo::GetPeerName6),
    (program::CONNECT4, AttachTo::Connect4),
    (program::CONNECT6, AttachTo::Connect6),
];

/// A loaded program.
#[derive(Debug)]
pub(super) struct Program {
    fd: ProgramFd,
    /// The kernel's identifier.
    pub(super) id: u32,
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The maps that user space uses.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) pods: Map<u64, Pod>,
    pub(super) addresses: Map<Ip, u32>,
    /// A `SOCKMAP`: the value is written as a descriptor, and cannot be read.
    pub(super) listeners: Map<u32, u32>,
    pub(super) sockets: Map<i32, Stored>,
    pub(super) settings: Map<u32, Settings>,
    pub(super) counters: Map<u32, u64>,
}

/// Loads the object, again and again: each pod has an instance of its own of one program. One for
/// the whole life of the process, because making aya's loader reads the kernel's type information,
/// megabytes that no program of ours depends on.
#[derive(Debug)]
pub(super) struct Loader {
    aya: Mutex<EbpfLoader<'static>>,
    pins: Pins,
}

/// The values that a pod's instance can have for its slot; aya keeps a reference.
static SLOTS: [u32; MAX_PODS as usize] = {
    let mut slots = [0; MAX_PODS as usize];
    let mut slot = 0;
    while slot < slots.len() {
        slots[slot] = slot as u32;
        slot += 1;
    }
    slots
};

impl Loader {
    /// A loader that takes the pinned maps, or makes and pins them.
    pub(super) fn new(pins: &Pins) -> Self {
        let mut aya = EbpfLoader::new();
        aya.btf(None);
        for name in [
            map::PODS,
            map::ADDRESSES,
            map::LISTENERS,
            map::ORIGINALS,
            map::TRUSTED,
            map::SOCKETS,
            map::SETTINGS,
            map::COUNTERS,
        ] {
            aya.map_pin_path(name, pins.map(name));
        }
        Self {
            aya: Mutex::new(aya),
            pins: pins.clone(),
        }
    }

    /// Loads the programs of the cgroup hooks, in the order of [`HOOKS`], and opens the maps.
    pub(super) fn hooks(&self) -> Result<(Vec<Program>, Maps), Error> {
        let mut object = self.load(0)?;
        let mut programs = Vec::with_capacity(HOOKS.len());
        for (name, _) in HOOKS {
            programs.push(verify(&mut object, name)?);
        }
        // The verifier's word on the pods' program is wanted now, not when the first pod comes.
        verify(&mut object, program::LOOKUP)?;
        let maps = Maps {
            pods: Map::new(self.open(map::PODS)?),
            addresses: Map::new(self.open(map::ADDRESSES)?),
            listeners: Map::new(self.open(map::LISTENERS)?),
            sockets: Map::new(self.open(map::SOCKETS)?),
            settings: Map::new(self.open(map::SETTINGS)?),
            counters: Map::new(self.open(map::COUNTERS)?),
        };
        Ok((programs, maps))
    }

    /// Loads the look-up program for the pod with this slot.
    pub(super) fn lookup(&self, slot: u32) -> Result<Program, Error> {
        verify(&mut self.load(slot)?, program::LOOKUP)
    }

    fn load(&self, slot: u32) -> Result<Ebpf, Error> {
        let slot = &SLOTS[slot as usize];
        let mut aya = self.aya.lock();
        aya.override_global(SLOT_GLOBAL, slot, true);
        aya.load(OBJECT).map_err(|error| Error::Load {
            pins: self.pins.dir().to_owned(),
            source: Box::new(error),
        })
    }

    /// A map by its pin, which loading has made.
    fn open(&self, name: &'static str) -> Result<OwnedFd, Error> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        kernel::open_pin(&self.pins.map(name))
            .and_then(|fd| fd.ok_or_else(gone))
            .map_err(map_error(name, "opening the pin"))
    }
}

fn verify(object: &mut Ebpf, name: &'static str) -> Result<Program, Error> {
    let program = || -> Result<Program, ProgramError> {
        let program = object
            .program_mut(name)
            .ok_or(ProgramError::UnexpectedProgramType)?;
        let fd = match name {
            program::SOCKOPS => {
                let program: &mut SockOps = program.try_into()?;
                program.load()?;
                program.fd()?.try_clone()?
            }
            program::LOOKUP => {
                let program: &mut SkLookup = program.try_into()?;
                program.load()?;
                program.fd()?.try_clone()?
            }
            _ => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                program.fd()?.try_clone()?
            }
        };
        let id = program.info()?.id();
        Ok(Program { fd, id })
    }();
    program.map_err(|source| Error::Program {
        program: name,
        step: "loading",
        source: Box::new(source),
    })
}

pub(super) fn map_error(map: &'static str, step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Map { map, step, source }
}
