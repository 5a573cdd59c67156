//! `mqs bench` by way of `cargo bench`, which builds it with its own profile.
//!
//!     cargo bench --bench queue -- --scenario single --seconds 2

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // cargo adds this one
    let mut given: Vec<OsString> =
        std::env::args_os().skip(1).filter(|arg| arg.as_os_str() != "--bench").collect();
    // a scenario that needs a second process starts this program with the command's arguments
    let command = given.first().and_then(|first| first.to_str());
    if !command.is_some_and(|command| command.starts_with("bench")) {
        given.insert(0, "bench".into());
    }
    mqs::run(std::iter::once("mqs".into()).chain(given))
}
