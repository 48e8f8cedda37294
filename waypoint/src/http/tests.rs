//! Whole requests over loopback: a client, a waypoint with its threads, backends in this process.

mod lifecycle;
mod plain;
mod web;
mod world;
