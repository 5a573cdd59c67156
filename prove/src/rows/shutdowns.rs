//! P12: SIGTERM under load. A child submits and runs tasks of all lengths until it is told to end.

use std::path::Path;
use std::time::{Duration, Instant};

use message_queue_sqlite::prelude::*;
use rustix::process::{Pid, Signal, kill_process};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::child;
use crate::history::{History, Lines};
use crate::row::{Control, Goal, Row};
use crate::scene::{self, LIMIT, block_on, harness, in_time, until_all_ended};

pub(crate) const SHUTDOWNS: Row = Row {
    name: "P12",
    promise: "a shutdown loses nothing, and what it interrupts costs nothing",
    test: "SIGTERM to a child under load, with tasks that take longer than its deadline",
    goals: &[Goal::new("shutdowns", 300)],
    never: &["lost", "refused and stored", "failures or crashes of released attempts"],
    case: |case| shutdown(case, Signal::TERM),
    controls: &[Control {
        without: "the shutdown (SIGKILL instead of SIGTERM)",
        fails: "crashes",
        within: 5,
        case: |case| shutdown(case, Signal::KILL),
    }],
    side_by_side: 2,
};

/// How long the child has to end in order.
const DEADLINE: Duration = Duration::from_millis(200);

/// Takes longer than the deadline each tenth time, at first.
#[task(name = "prove.long", max_attempts = 1)]
async fn long(number: u64, _filling: Vec<u8>, patience: Data<Patience>) -> Result<u64, TaskError> {
    if number.is_multiple_of(10) {
        tokio::time::sleep(patience.0).await;
    } else if number.is_multiple_of(3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(number)
}

/// How long the long ones take.
struct Patience(Duration);

async fn start(dir: &Path, long: Duration) -> Result<Queue, Failure> {
    let builder = Queue::builder().settings(scene::settings(2)).dir(dir.join("queue"));
    let builder = builder.discover(module_path!()).data(Patience(long));
    builder.start().await.map_err(|error| Failure::new("stuck", error))
}

/// What a child does.
pub(crate) fn child(dir: &Path) -> Result<(), Failure> {
    block_on(async {
        let queue = start(dir, Duration::from_secs(3_600)).await?;
        let journal = Lines::open(&dir.join("journal")).map_err(harness)?;
        let client = async |client: u64| {
            for number in (client..).step_by(4) {
                journal.add(&format!("try {number}")).map_err(harness)?;
                match queue.submit(long::task(number, Vec::new())).await {
                    Ok(handle) => {
                        let ack = format!("ack {number} {}", handle.id());
                        journal.add(&ack).map_err(harness)?;
                    }
                    Err(Error::ShuttingDown) => {
                        return journal.add(&format!("refused {number}")).map_err(harness);
                    }
                    Err(error) => return Err(Failure::new("untyped", error)),
                }
            }
            Ok::<(), Failure>(())
        };
        let clients = async { tokio::join!(client(0), client(1), client(2), client(3)) };
        let ending = async {
            message_queue_sqlite::shutdown_signal().await.map_err(harness)?;
            let began = Instant::now();
            let report = queue.shutdown(DEADLINE).await.map_err(harness)?;
            let took = began.elapsed().as_micros();
            journal.add(&format!("ended {took} {}", report.released)).map_err(harness)
        };
        let ((a, b, c, d), ended) = tokio::join!(clients, ending);
        a.and(b).and(c).and(d).and(ended)
    })
}

fn shutdown(case: &Case, signal: Signal) -> CaseOutcome {
    let dir = case.scratch().to_path_buf();
    let lines = case.random(1).usize(50..600);
    let mut child = child::command("shutdown", &dir, "")?.spawn().map_err(harness)?;
    let journal = dir.join("journal");
    let began = Instant::now();
    while Lines::count(&journal) < lines {
        if child.try_wait().map_err(harness)?.is_some() || began.elapsed() > LIMIT {
            return Err(Failure::new("stuck", "the child doesn't get there"));
        }
        std::thread::yield_now();
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, signal).map_err(harness)?;
    let told = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(harness)? {
            break status;
        }
        if told.elapsed() > LIMIT {
            child.kill().map_err(harness)?;
            return Err(Failure::new("stuck", "the child never ends"));
        }
        std::thread::yield_now();
    };
    if signal == Signal::TERM && !status.success() {
        return Err(Failure::new("stuck", format!("the child ended badly: {status}")));
    }
    let (tasks, restarted) = block_on(async {
        let queue = start(&dir, Duration::ZERO).await?;
        let restarted = queue.recovery().restarted;
        until_all_ended(&queue).await?;
        let tasks = scene::all(&queue, "prove.long").await?;
        let ended = in_time("stuck", "the shutdown", queue.shutdown(LIMIT)).await?;
        ended.map_err(harness)?;
        Ok::<_, Failure>((tasks, restarted))
    })?;
    let history = History::read(&journal)?;
    history.check(&tasks)?;
    for record in tasks.values() {
        let counters = record.counters;
        if counters.failures + counters.crashes > 0 {
            return Err(Failure::new("crashes", format!("{}: {counters:?}", record.id)));
        }
    }
    if restarted > 0 {
        return Err(Failure::new("crashes", format!("{restarted} attempts were left running")));
    }
    let ended = Lines::read(&journal).into_iter().find(|line| line.starts_with("ended "));
    let ended = ended.ok_or_else(|| Failure::new("stuck", "the child tells nothing of its end"))?;
    let mut words = ended.split(' ').skip(1).map(str::parse::<u64>);
    let (Some(Ok(took)), Some(Ok(released))) = (words.next(), words.next()) else {
        return Err(harness(ended));
    };
    Ok(Seen::default()
        .count("shutdowns", 1)
        .count("refused submissions", history.refused.len() as u64)
        .count("acknowledged", history.acknowledged.len() as u64)
        .count("released attempts", released)
        .time("shutdown with a deadline of 200 ms", Duration::from_micros(took)))
}
