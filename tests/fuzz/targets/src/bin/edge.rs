//! libFuzzer drives `fuzz::edge`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::edge::check(bytes));
