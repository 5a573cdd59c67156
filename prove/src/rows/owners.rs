//! P14: one owner. Processes race for a directory; others fork, or find files that aren't the queue's.

mod files;
mod forks;
mod races;

use std::path::Path;

use crate::case::Failure;
use crate::row::{Control, Goal, Row};

pub(crate) const OWNERS: Row = Row {
    name: "P14",
    promise: "a directory has one owner, and files that aren't its own are noticed",
    test: "processes that race for it; forks under load; files removed, replaced, copied, exchanged",
    goals: &[
        Goal::new("races", 500),
        Goal::new("forks", 500),
        Goal::new("wrong files at a start", 500),
        Goal::new("files removed or replaced while open", 60),
    ],
    never: &["second owners", "calls of a fork that hang", "files taken for its own", "lost"],
    case: |case| match case.seed % 4 {
        0 => races::race(case, ""),
        1 => forks::fork(case, ""),
        2 => files::wrong_at_a_start(case),
        _ => files::gone_while_open(case),
    },
    controls: &[
        Control {
            without: "the lock",
            fails: "two owners",
            within: 3,
            case: |case| races::race(case, "lock"),
        },
        Control {
            without: "the refusal of forks",
            fails: "hangs",
            within: 1,
            case: |case| forks::fork(case, "forks"),
        },
        Control {
            without: "the identity of shards",
            fails: "taken",
            within: 1,
            case: files::wrong_without_identity,
        },
        Control {
            without: "the watch over open files",
            fails: "unnoticed",
            within: 1,
            case: files::gone_without_watch,
        },
    ],
    side_by_side: 8,
};

/// What a child does that wants the directory.
pub(crate) fn contender(dir: &Path) -> Result<(), Failure> {
    races::child(dir)
}

/// What a child does that forks.
pub(crate) fn forker(dir: &Path) -> Result<(), Failure> {
    forks::child(dir)
}
