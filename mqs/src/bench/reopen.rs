//! `reopen`: how soon the first task runs when a queue is started with many in its files.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use message_queue_sqlite::prelude::*;
use tokio::sync::watch;

use super::fill::{End, Fill};
use super::hold::{Gate, hold_slot};
use super::measure::Measured;
use super::process::{Watch, cpu};
use super::report::Row;
use super::scenario::Case;
use super::world;
use super::{AnyError, Bench};

/// When the first task ran. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct First(Arc<watch::Sender<Option<Instant>>>);

impl First {
    fn ran(&self) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(Instant::now);
            is_first
        });
    }

    async fn wait(&self) -> Result<Instant, AnyError> {
        let mut first = self.0.subscribe();
        let first = *first.wait_for(Option::is_some).await?;
        first.ok_or_else(|| "no task ran".into())
    }
}

/// Says that it runs, and does nothing more.
#[task(name = "bench.mark")]
pub(crate) async fn mark(payload: String, first: Data<First>) -> Result<u64, std::io::Error> {
    first.ran();
    Ok(payload.len() as u64)
}

/// Has a process of its own fill the directory and end.
fn fill(fill: &Fill) -> Result<(), AnyError> {
    let mut child = Command::new(std::env::current_exe()?);
    child.arg("bench-fill").arg("--dir").arg(&fill.dir);
    child.args(["--rows", &fill.rows.to_string(), "--shards", &fill.shards.to_string()]);
    child.args(["--durability", &fill.durability.name().to_lowercase(), "--end", fill.end.name()]);
    let ended = child.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let as_told = match fill.end {
        End::Clean => ended.success(),
        // it has no code if a signal ended it
        End::Unclean => ended.code().is_none(),
    };
    as_told.then_some(()).ok_or_else(|| format!("the process that fills ended: {ended}").into())
}

/// Starts a queue in a directory that was filled, until its first task runs.
fn reopen(dir: &Path, case: Case) -> Result<Measured, AnyError> {
    world::block_on(async {
        let first = First::default();
        let builder = world::builder(dir, case.durability, case.shards);
        let builder = builder.data(first.clone()).data(Gate::open());
        let builder = builder.register::<mark::Task>().register::<hold_slot::Task>();
        let watch = Watch::start();
        let (spent, began) = (cpu(), Instant::now());
        let queue = builder.start().await?;
        let first = first.wait().await?;
        let spent = cpu().saturating_sub(spent);
        let mut measured = Measured {
            rss_mb: watch.stop(),
            cpu_s: Some(spent.as_secs_f64()),
            ..Measured::default()
        };
        let took = first.duration_since(began);
        measured.extra.insert("first_task_ms", took.as_secs_f64() * 1e3);
        world::leave(queue).await?;
        Ok(measured)
    })
}

/// A start after a clean end and after an unclean one, in turns, in one directory that is filled up
/// before each.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let rows = bench.options.rows;
    let mut rounds = [(End::Clean, Vec::new()), (End::Unclean, Vec::new())];
    bench.in_fresh(|dir| {
        bench.rounds(case, || {
            for (end, measured) in &mut rounds {
                let Case { durability, shards, .. } = case;
                let dir = dir.join("queue");
                fill(&Fill { dir: dir.clone(), rows, durability, shards, end: *end })?;
                measured.push(reopen(&dir, case)?);
            }
            Ok(())
        })
    })?;
    let rows = |(end, measured): &(End, Vec<Measured>)| {
        Row::of(case, &[], measured).with("end", end.name()).with("rows", rows)
    };
    Ok(rounds.iter().map(rows).collect())
}
