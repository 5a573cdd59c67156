//! Processes that a row starts: this program again, in a part of its own.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::case::Failure;
use crate::scene::harness;

/// The variable that tells a child what is taken out of it.
pub(crate) const WITHOUT: &str = "PROVE_WITHOUT";

/// The code with which a child ends that can't go on: that of no task that ends its process.
pub(crate) const BROKEN: u8 = 70;

/// A child that plays `part` in a directory; nobody talks to it or hears what it prints.
pub(crate) fn command(part: &str, dir: &Path, without: &str) -> Result<Command, Failure> {
    let mut child = Command::new(std::env::current_exe().map_err(harness)?);
    child.arg("child").arg(part).arg(dir).env(WITHOUT, without);
    child.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(child)
}

/// What is taken out of this child; empty if nothing is.
pub(crate) fn without() -> String {
    std::env::var(WITHOUT).unwrap_or_default()
}

/// The failure that a child has told of as it ended; `kinds` are those that it may have.
pub(crate) fn failure(status: ExitStatus, said: &str, kinds: &[&'static str]) -> Failure {
    let told = said.split_once("the child: ").and_then(|told| told.1.split_once(": "));
    let Some((kind, what)) = told else { return harness(format!("{status}: {said}")) };
    let kind = kinds.iter().find(|known| **known == kind);
    Failure::new(kind.unwrap_or(&"harness"), what)
}
