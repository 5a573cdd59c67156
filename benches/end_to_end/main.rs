//! The whole queue beside the bare loop, in one run.
//!
//!     cargo bench --bench end_to_end
//!
//! Each case alternates rounds of the bare loop (the least that SQLite has to do for the same
//! tasks: insert, claim, finish, deliver, in transactions of 1,024, one connection and thread a
//! file) with rounds of the queue (one `Submit` a task, 2,048 in flight, a no-op async task, 150
//! bytes of payload, the result in a subscribed mailbox, callbacked), and prints the medians. Read
//! the ratio: the figures themselves follow the machine and its disk.
//!
//! `MQS_BENCH_TASKS` (500000), `MQS_BENCH_ROUNDS` (3), `MQS_BENCH_DIR` (a temporary directory) and
//! `MQS_BENCH_CASES` (for example `NORMAL/1,FULL/2`) change what is run.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod bare;
mod queue;

use std::path::PathBuf;

type AnyError = Box<dyn std::error::Error>;

struct Case {
    durability: &'static str,
    shards: usize,
}

const CASES: [Case; 4] = [
    Case { durability: "NORMAL", shards: 1 },
    Case { durability: "NORMAL", shards: 2 },
    Case { durability: "FULL", shards: 1 },
    Case { durability: "FULL", shards: 2 },
];

fn main() -> Result<(), AnyError> {
    let tasks: usize = number("MQS_BENCH_TASKS", 500_000)?;
    let rounds: usize = number("MQS_BENCH_ROUNDS", 3)?;
    let wanted = std::env::var("MQS_BENCH_CASES").ok();
    let parent = match std::env::var_os("MQS_BENCH_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::temp_dir(),
    };
    let dir = tempfile::Builder::new().prefix("mqs-bench-").tempdir_in(parent)?;
    println!("{tasks} tasks, medians of {rounds} alternating rounds");
    println!("durability  shards  bare tasks/s  queue tasks/s  ratio  row writes/task");
    for Case { durability, shards } in CASES {
        let name = format!("{durability}/{shards}");
        if wanted.as_ref().is_some_and(|wanted| !wanted.split(',').any(|one| one == name)) {
            continue;
        }
        let (mut bare, mut queue, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let at = dir.path().join(format!("{durability}-{shards}-{round}"));
            std::fs::create_dir(&at)?;
            bare.push(bare::run(&at, durability, shards, tasks)?);
            let ran = queue::run(&at.join("queue"), durability, shards, tasks)?;
            queue.push(ran.tasks_per_s);
            writes.push(ran.row_writes_per_task);
            std::fs::remove_dir_all(&at)?;
        }
        let (bare, queue, writes) = (median(bare), median(queue), median(writes));
        let ratio = queue / bare;
        println!(
            "{durability:<10}  {shards:>6}  {bare:>12.0}  {queue:>13.0}  {ratio:>5.2}  {writes:>15.2}"
        );
    }
    Ok(())
}

fn number(name: &str, default: usize) -> Result<usize, AnyError> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse().map_err(|_| format!("{name} is not a number: {text}"))?),
        Err(_) => Ok(default),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
