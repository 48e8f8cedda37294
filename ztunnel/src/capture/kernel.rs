//! The handful of `bpf(2)` commands and socket options that no crate has for us: replacing the
//! program of a link, pins, a link's description, storage of a socket, a namespace's cookie. Safe
//! functions around one syscall each; nothing here knows what the programs are for.

#![allow(unsafe_code)] // Syscalls with pointers to our own memory.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// Types that are the same bytes on both sides: fixed layout, no padding, any bytes are a value.
///
/// # Safety
/// The type must be exactly that.
pub(super) unsafe trait Plain: Copy + 'static {}

// SAFETY: numbers, and the contract's types, whose layout tests say the same.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for ebpf_contract::Ip {}
// SAFETY: as above.
unsafe impl Plain for ebpf_contract::Pod {}
// SAFETY: as above.
unsafe impl Plain for ebpf_contract::Settings {}
// SAFETY: as above.
unsafe impl Plain for ebpf_contract::Stored {}

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Where a program is attached: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachTo {
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    SkLookup = 36,
}

/// A map, by its descriptor.
#[derive(Debug)]
pub(super) struct Map<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K, V)>,
}

/// `union bpf_attr` for commands on a map's element.
#[repr(C)]
struct Element {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<K: Plain, V: Plain> Map<K, V> {
    /// A map of these types. The caller vouches for them: the layout has named the pins' folder.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            types: PhantomData,
        }
    }

    /// The value, or `None` if there is no such key.
    pub(super) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        match self.command(BPF_MAP_LOOKUP_ELEM, key, value.as_mut_ptr(), 0) {
            // SAFETY: the kernel has written the whole value.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the value, whether or not there is one.
    pub(super) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        self.command(BPF_MAP_UPDATE_ELEM, key, &raw const *value, 0)
    }

    /// Removes the key; that there is none is no error.
    pub(super) fn remove(&self, key: &K) -> io::Result<()> {
        match self.command(BPF_MAP_DELETE_ELEM, key, std::ptr::null::<V>(), 0) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// All keys that are there while it is read.
    pub(super) fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys = Vec::new();
        loop {
            let last = keys.last().map_or(std::ptr::null(), std::ptr::from_ref);
            let mut next = MaybeUninit::<K>::uninit();
            match self.command(BPF_MAP_GET_NEXT_KEY, last, next.as_mut_ptr(), 0) {
                // SAFETY: the kernel has written the whole key.
                Ok(()) => keys.push(unsafe { next.assume_init() }),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    fn command<T>(
        &self,
        command: libc::c_long,
        key: *const K,
        value: *const T,
        flags: u64,
    ) -> io::Result<()> {
        let mut attributes = Element {
            map: self.fd.as_raw_fd() as u32,
            zero: 0,
            key: key as u64,
            value: value as u64,
            flags,
        };
        bpf(command, &mut attributes).map(drop)
    }
}

impl Map<u32, u64> {
    /// The values of all CPUs together, of a map that has one for each.
    pub(super) fn sum(&self, key: u32, cpus: usize) -> io::Result<u64> {
        let mut values = vec![0_u64; cpus];
        self.command(BPF_MAP_LOOKUP_ELEM, &key, values.as_mut_ptr(), 0)?;
        Ok(values.iter().sum())
    }
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The program's identifier.
    pub(super) program: u32,
    /// The cgroup's identifier, or the network namespace's inode; 0 once the target is gone.
    pub(super) target: u64,
}

/// A program attached to a target. It stays attached while this descriptor or a pin lives.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Attaches a program to a cgroup or a network namespace, beside what is attached already.
    pub(super) fn create(
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        to: AttachTo,
    ) -> io::Result<Self> {
        let mut attributes: [u32; 4] = [
            program.as_raw_fd() as u32,
            target.as_raw_fd() as u32,
            to as u32,
            0,
        ];
        bpf_fd(BPF_LINK_CREATE, &mut attributes).map(Self)
    }

    /// The link that is pinned here; `None` if nothing is.
    pub(super) fn pinned(path: &Path) -> io::Result<Option<Self>> {
        Ok(open_pin(path)?.map(Self))
    }

    /// Puts another program in the place of the link's, in one step.
    pub(super) fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes: [u32; 4] =
            [self.0.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
        bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
    }

    /// Detaches the program at once. A link that merely loses its last pin is detached by a worker
    /// of the kernel, some time later.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut attributes = [self.0.as_raw_fd() as u32];
        bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
    }

    /// Pins the link.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        let path = c_path(path)?;
        let mut attributes = Pin {
            path: path.as_ptr() as u64,
            fd: self.0.as_raw_fd() as u32,
            flags: 0,
        };
        bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
    }

    /// What is attached where.
    pub(super) fn info(&self) -> io::Result<LinkInfo> {
        /// `struct bpf_link_info`, as far as it goes for cgroups and network namespaces.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            kind: u32,
            id: u32,
            program: u32,
            zero: u32,
            first: [u32; 2],
            second: u32,
            rest: [u32; 25], // Later kernels write more.
        }
        /// `BPF_LINK_TYPE_CGROUP`.
        const CGROUP: u32 = 3;
        let mut info = Info::default();
        let mut attributes: [u32; 4] = {
            let pointer = &raw mut info as u64;
            let [low, high] = words(pointer);
            [
                self.0.as_raw_fd() as u32,
                size_of::<Info>() as u32,
                low,
                high,
            ]
        };
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
        // SAFETY: the kernel wrote through the pointer; the compiler must read it again.
        let info = unsafe { std::ptr::read_volatile(&raw const info) };
        let [low, high] = info.first;
        let target = match info.kind {
            CGROUP => u64::from_ne_bytes(join(low, high)),
            _ => low.into(), // A network namespace's inode has 32 bits.
        };
        Ok(LinkInfo {
            program: info.program,
            target,
        })
    }
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`; `None` if nothing is.
pub(super) fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attributes = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    match bpf_fd(BPF_OBJ_GET, &mut attributes) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The identifier of the network namespace that a socket is in; unique until the machine restarts.
pub(super) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn words(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

fn join(low: u32, high: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

fn bpf_fd<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: these commands return a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel uses `size` bytes of the attributes, and follows only the pointers in
    // them, which the callers above point at live memory of the size that the command asks for.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
