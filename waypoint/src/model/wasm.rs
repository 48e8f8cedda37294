//! A plugin by proxy-wasm: what it is told, where its code is, and what becomes of requests where it
//! fails. What its code was compiled to is in a cell of its own, since it comes later, and from
//! elsewhere: `crate::wasm::load` fills it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::wasm::Compiled;

/// A plugin.
#[derive(Debug)]
pub struct Plugin {
    /// What its configuration says.
    pub settings: Arc<Settings>,
    /// What its code was compiled to, as far as that has happened.
    pub module: ArcSwap<Module>,
    /// Somebody sees to its code.
    claimed: AtomicBool,
}

/// What a plugin's configuration says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, for logs and for itself.
    pub name: Box<str>,
    /// Which of several plugins of the module it is.
    pub root_id: Box<str>,
    /// Plugins of the same one share data and queues.
    pub vm_id: Box<str>,
    /// What it hears as it starts.
    pub vm_configuration: Box<[u8]>,
    /// What it is configured with.
    pub configuration: Box<[u8]>,
    /// Environment variables that it sees.
    pub environment: Vec<(Box<str>, Box<str>)>,
    /// Environment variables of this process that it sees.
    pub host_environment: Vec<Box<str>>,
    /// Where its code is.
    pub code: Code,
    /// What becomes of requests when it fails.
    pub failure: OnFailure,
    /// Where it stops a message's head, it sees the body while the head waits; else afterwards.
    pub body_before_head: bool,
    /// The functions that it may call and that are called; none: all.
    pub allowed: Option<BTreeSet<Box<str>>>,
}

/// Where a plugin's code is.
#[derive(Debug, Clone)]
pub enum Code {
    /// In its configuration.
    Inline(Arc<[u8]>),
    /// In a file.
    File(Box<str>),
    /// Elsewhere.
    Remote(Remote),
}

/// Code that is fetched.
#[derive(Debug, Clone)]
pub struct Remote {
    /// `https://…`, `http://…` or `oci://…`.
    pub uri: Box<str>,
    /// The digest that it must have, hexadecimal: of the code, or of an image's manifest.
    pub sha256: Option<Box<str>>,
    /// How long fetching it may take, all attempts together.
    pub timeout: Duration,
    /// What the registry wants to hear; none: nothing.
    pub secret: Option<PullSecret>,
    /// When it is fetched again.
    pub again: Pull,
    /// The version of the object that asks for it.
    pub version: Box<str>,
}

/// A registry's credentials, in the JSON of Docker's configuration. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret(pub Box<str>);

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullSecret")
    }
}

/// When code of the same address is fetched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// Never, but of an image that is called `latest` where the object has changed.
    #[default]
    Unspecified,
    /// Never.
    IfNotPresent,
    /// Where the object that asks for it has changed.
    Always,
}

/// What becomes of requests when a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They are answered with 503.
    Closed,
    /// They pass as if it weren't there.
    Open,
    /// As closed, and it is started anew after a pause, which grows from the first to the second.
    Reload(Duration, Duration),
}

/// What a plugin's code was compiled to.
#[derive(Debug)]
pub enum Module {
    /// It is still fetched or compiled.
    Coming,
    /// It could not be fetched, or is none; why.
    Failed(Box<str>),
    /// It can be started.
    Ready(Arc<Compiled>),
}

impl Plugin {
    /// A plugin whose code is still to come.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            module: ArcSwap::from_pointee(Module::Coming),
            claimed: AtomicBool::new(false),
        }
    }

    /// Whether somebody is to see to its code: true once.
    #[must_use]
    pub fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }

    /// Whether it is known what becomes of its code.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(**self.module.load(), Module::Coming)
    }
}
