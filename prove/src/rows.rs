//! The rows of the table, in its order.

mod actors;
mod clocks;
mod cuts;
mod damage;
mod errors;
mod fences;
mod full_disk;
mod kills;
mod owners;
mod panics;
mod poison;
mod shutdowns;
mod simulation;
mod soak;
mod syncs;

use std::ffi::OsStr;
use std::path::Path;

use crate::case::Failure;
use crate::row::Row;
use crate::scene::harness;

/// All of them.
pub(crate) fn all() -> Vec<Row> {
    vec![
        kills::KILLS,
        cuts::CUTS,
        errors::ERRORS,
        syncs::SYNCS,
        fences::FENCES,
        poison::POISON,
        kills::CALLBACKS,
        panics::PANICS,
        actors::row(),
        simulation::ORDER,
        clocks::CLOCKS,
        shutdowns::SHUTDOWNS,
        full_disk::row(),
        owners::OWNERS,
        damage::DAMAGE,
        soak::SOAK,
        simulation::SIMULATION,
    ]
}

/// What a process does that a row has started.
pub(crate) fn child(part: &OsStr, dir: &Path) -> Result<(), Failure> {
    match part.to_str() {
        Some("kills") => kills::child(dir),
        Some("poison") => poison::child(dir),
        Some("full disk") => full_disk::child(dir),
        Some("contender") => owners::contender(dir),
        Some("forker") => owners::forker(dir),
        Some("soak") => soak::child(dir),
        Some("shutdown") => shutdowns::child(dir),
        _ => Err(harness("no row has such a child")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_something_that_it_counts() {
        let rows = all();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(rows.iter().all(|row| !row.goals.is_empty() && !row.controls.is_empty()));
    }
}
