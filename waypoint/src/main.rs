//! The waypoint program: parses its arguments, builds, runs, exits.

fn main() {}
