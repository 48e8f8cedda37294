//! Whole requests over loopback: a client, a waypoint with its threads, backends in this process.

mod lifecycle;
mod lifetimes;
mod plain;
mod slow;
mod traced;
mod web;
mod world;
