//! Tests of the world and of routing.
