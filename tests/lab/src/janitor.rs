//! A process that removes a lab's traces when the lab's own process could not: it waits for the end
//! of its stdin, which comes however that process ends (a panic, Ctrl-C, `kill -9`).

use std::os::unix::process::CommandExt;
use std::process::Child;

use anyhow::{Context, Result};

use crate::leftovers::Leftovers;
use crate::workload::Program;

/// The process, and what it would remove.
#[derive(Debug)]
pub(crate) struct Janitor {
    pub(crate) traces: Leftovers,
    process: Option<Child>,
}

impl Janitor {
    /// Starts it, before anything is made.
    pub(crate) fn hire(program: &Program, traces: Leftovers) -> Result<Self> {
        let (folder, cgroup) = (
            traces.folder.to_string_lossy(),
            traces.cgroup.to_string_lossy(),
        );
        let mut command = program.command(&["janitor", &folder, &cgroup]);
        // Its own process group: Ctrl-C in the terminal must not reach it.
        let process = command
            .process_group(0)
            .spawn()
            .context("starting the janitor")?;
        Ok(Self {
            traces: traces.clone(),
            process: Some(process),
        })
    }

    /// Removes the traces from here, and lets the process go.
    pub(crate) fn dismiss(&mut self) {
        if let Err(error) = self.traces.remove() {
            eprintln!("lab: {} leaves traces: {error:#}", self.traces.name());
        }
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            // It finds nothing to do and ends.
            let _ = process.wait();
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.dismiss();
        }
    }
}
