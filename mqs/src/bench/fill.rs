//! Filling a directory with ready tasks in a process that may end badly: the other half of `reopen`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use message_queue_sqlite::Submission;
use message_queue_sqlite::prelude::*;
use rustix::process::{Signal, getpid, kill_process};

use super::AnyError;
use super::enqueue::BULK;
use super::hold::{Gate, hold_slot, hold_slots};
use super::options::{Durability, shards};
use super::reopen::{First, mark};
use super::world;

/// At least one of so many tasks is stored anew, however many are there.
const ANEW: usize = 50;

/// What to fill, and how to end.
#[derive(Args, Clone, Debug)]
pub(crate) struct Fill {
    /// The queue's directory
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// How many ready tasks it is to have
    #[arg(long)]
    pub(super) rows: usize,
    #[arg(long, value_enum)]
    pub(super) durability: Durability,
    #[arg(long, value_parser = shards)]
    pub(super) shards: usize,
    #[arg(long, value_enum)]
    pub(super) end: End,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum End {
    /// By a shutdown.
    Clean,
    /// Killed, with the files open.
    Unclean,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            End::Clean => "clean",
            End::Unclean => "unclean",
        }
    }
}

impl Fill {
    /// Adds ready tasks until there are enough. Of an unclean end it doesn't return.
    pub(crate) fn run(&self) -> Result<(), AnyError> {
        world::block_on(async {
            let gate = Gate::open();
            let queue = self.start(&gate).await?;
            hold_slots(&queue, &gate, 1).await?;
            let ready = queue.counts().await?.get(&TaskStatus::NotStarted).copied().unwrap_or(0);
            // a few in any case, so that an unclean end leaves something in the log
            let missing = self.rows.saturating_sub(usize::try_from(ready)?);
            let mut missing = missing.max(self.rows / ANEW);
            while missing > 0 {
                let some = missing.min(BULK);
                queue.submit_all((0..some).map(|_| marked())).await?;
                missing -= some;
            }
            if self.end == End::Unclean {
                kill_process(getpid(), Signal::KILL)?;
            }
            world::leave(queue).await
        })
    }

    /// A queue with one slot, which is easily held.
    async fn start(&self, gate: &Gate) -> Result<Queue, AnyError> {
        let mut settings = Settings::default();
        settings.storage.dir = self.dir.clone();
        settings.storage.durability = self.durability.setting();
        settings.shards.count = Some(self.shards);
        settings.workers.count = Some(1);
        settings.workers.concurrency = 1;
        settings.workers.prefetch = 0;
        let builder = Queue::builder().settings(settings).data(gate.clone()).data(First::default());
        Ok(builder.register::<mark::Task>().register::<hold_slot::Task>().start().await?)
    }
}

/// A task with a payload as all others have here.
fn marked() -> Submission<mark::Task> {
    mark::task("x".repeat(world::PAYLOAD))
}
