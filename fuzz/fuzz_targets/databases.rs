//! Hostile bytes as databases: see `src/hostile/mod.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message_queue_sqlite_fuzz::hostile::databases(bytes));
