//! libFuzzer drives `fuzz::grpc_web`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::grpc_web::check(bytes));
