//! libFuzzer drives `fuzz::resources`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::resources::check(bytes));
