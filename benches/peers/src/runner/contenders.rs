//! Who takes part: a peer, and a way of using it.

use peers::{Durability, Scenario};

/// A peer, used in one way.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// The directory of its program.
    pub(crate) package: &'static str,
    pub(crate) variant: &'static str,
    /// What it can be set to, or sets itself.
    pub(crate) durabilities: &'static [Durability],
    /// What it can't do.
    pub(crate) without: &'static [Scenario],
    /// The most tasks of a round of `drain`, where a backlog makes it slower.
    pub(crate) drain_max: usize,
    /// The most finished tasks of `history`, where they make it slower by far.
    pub(crate) history_max: usize,
    /// In a few words, for the list.
    pub(crate) what: &'static str,
}

const BOTH: &[Durability] = &[Durability::Normal, Durability::Full];

/// The most tasks of a round.
pub(crate) const TASKS_MAX: usize = 2_000_000;

pub(crate) const CONTENDERS: &[Contender] = &[
    Contender {
        name: "ours",
        package: "ours",
        variant: "mailbox",
        durabilities: BOTH,
        without: &[],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "message_queue_sqlite, defaults, one file, results delivered to a mailbox",
    },
    Contender {
        name: "ours-quiet",
        package: "ours",
        variant: "quiet",
        durabilities: BOTH,
        // without a mailbox nothing tells when a task is recorded
        without: &[Scenario::Latency],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "the same, and nobody wants the results, as with the others",
    },
    Contender {
        name: "ours-files",
        package: "ours",
        variant: "files",
        durabilities: BOTH,
        without: &[Scenario::Latency],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "the same with one file per core, to which the number adapts under such a load",
    },
    Contender {
        name: "effectum",
        package: "effectum",
        variant: "wal",
        durabilities: &[Durability::Normal],
        without: &[],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "effectum, its file put into WAL mode first",
    },
    Contender {
        name: "effectum-published",
        package: "effectum",
        variant: "published",
        durabilities: &[Durability::Normal],
        without: &[],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "effectum as it is: rollback journal",
    },
    Contender {
        name: "honker-batch",
        package: "honker",
        variant: "batch",
        durabilities: BOTH,
        without: &[],
        drain_max: 20_000,
        history_max: usize::MAX,
        what: "honker, claims and acknowledgements of 64 on one thread",
    },
    Contender {
        name: "honker-waker",
        package: "honker",
        variant: "waker",
        durabilities: BOTH,
        without: &[],
        drain_max: 20_000,
        history_max: usize::MAX,
        what: "honker, the documented loop: claim_waker and ack",
    },
    Contender {
        name: "apalis-hook",
        package: "apalis",
        variant: "hook",
        durabilities: BOTH,
        without: &[],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "apalis-sqlite, woken by SQLite's update hook",
    },
    Contender {
        name: "apalis-polling",
        package: "apalis",
        variant: "polling",
        durabilities: BOTH,
        without: &[],
        drain_max: TASKS_MAX,
        history_max: usize::MAX,
        what: "apalis-sqlite, the basic worker",
    },
    Contender {
        name: "fang",
        package: "fang",
        variant: "async",
        durabilities: &[Durability::Full],
        without: &[Scenario::Bulk],
        drain_max: 20_000,
        history_max: 100_000,
        what: "fang, asynchronous, one worker",
    },
];

impl Contender {
    /// Whether it is one of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.package == "ours"
    }

    pub(crate) fn can(&self, scenario: Scenario, durability: Durability) -> bool {
        self.durabilities.contains(&durability) && !self.without.contains(&scenario)
    }

    /// How many finished tasks lie in its file in `history`, if it is to be so many.
    pub(crate) fn rows(&self, wanted: usize) -> usize {
        wanted.min(self.history_max)
    }

    pub(crate) fn tasks_max(&self, scenario: Scenario) -> usize {
        if scenario == Scenario::Drain { self.drain_max } else { TASKS_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_has_a_program() {
        let mut names: Vec<_> = CONTENDERS.iter().map(|contender| contender.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CONTENDERS.len());
        for contender in CONTENDERS {
            let manifest =
                format!("{}/{}/Cargo.toml", env!("CARGO_MANIFEST_DIR"), contender.package);
            assert!(std::path::Path::new(&manifest).exists(), "{manifest}");
        }
    }
}
