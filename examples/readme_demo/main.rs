//! The demo of the Python package's README, in Rust: two tasks, submitted in turn, each submission
//! with a callback of its own.
//!
//!     cargo run --release --example readme_demo -- --count 1000 --dir DIR
//!
//! Without `--count` it goes on until Ctrl-C.
#![expect(clippy::print_stdout, reason = "this is what the demo is for")]

mod engine;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;

use clap::Parser;
use message_queue_sqlite::Submission;
use message_queue_sqlite::prelude::*;
use tokio::sync::mpsc;

use engine::{test, test1};

/// The pause after each round, as in the original.
const PAUSE: Duration = Duration::from_millis(2);

/// How long running attempts may take when the queue ends.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    /// How often both tasks are submitted; until Ctrl-C if not given
    #[arg(long)]
    count: Option<u64>,
    /// The queue's directory; its parent must exist
    #[arg(long, default_value = "message_queue")]
    dir: PathBuf,
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { count, dir } = Arguments::parse();
    let engine = concat!(module_path!(), "::engine");
    let queue = Queue::builder().dir(dir).workers(5).shards(1).discover(engine).start().await?;
    println!("tasks: {}", queue.task_names().join(", "));

    let mut demo = Demo::new(queue.clone());
    let mut asked_to_end = pin!(shutdown_signal());
    let mut rounds = 0;
    while count.is_none_or(|count| rounds < count) {
        rounds += 1;
        demo.submit(test::task("hello world".into()).priority(1)).await?;
        demo.submit(test1::task("hello world".into()).priority(2)).await?;
        demo.take_calls();
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            signal = &mut asked_to_end => {
                signal?;
                break;
            }
        }
    }

    // what was submitted still ends and calls back, unless Ctrl-C comes (again)
    tokio::select! {
        () = demo.wait_for_calls() => {}
        signal = shutdown_signal() => signal?,
    }
    queue.shutdown(DEADLINE).await?;
    println!("{}", demo.tally);
    Ok(())
}

/// A callback was called: that of the submission with this number.
struct Call {
    number: u64,
    result: TaskResult,
}

/// Submits, and checks that each callback gets the result of its own submission.
struct Demo {
    queue: Queue,
    callbacks: mpsc::UnboundedSender<Call>,
    calls: mpsc::UnboundedReceiver<Call>,
    /// The ids of submissions whose callbacks haven't been called, by their numbers.
    open: HashMap<u64, TaskId>,
    tally: Tally,
}

impl Demo {
    fn new(queue: Queue) -> Self {
        let (callbacks, calls) = mpsc::unbounded_channel();
        Demo { queue, callbacks, calls, open: HashMap::new(), tally: Tally::default() }
    }

    async fn submit<T: Task>(&mut self, submission: Submission<T>) -> Result<(), Error> {
        let number = self.tally.submitted;
        let callbacks = self.callbacks.clone();
        let callback = move |result: TaskResult| {
            println!("{}", result.to_json());
            // nobody counts once main has ended
            drop(callbacks.send(Call { number, result }));
        };
        let handle = self.queue.submit(submission.on_result(callback)).await?;
        self.open.insert(number, handle.id());
        self.tally.submitted += 1;
        Ok(())
    }

    fn take_calls(&mut self) {
        while let Ok(call) = self.calls.try_recv() {
            self.count(&call);
        }
    }

    async fn wait_for_calls(&mut self) {
        while !self.open.is_empty() {
            let Some(call) = self.calls.recv().await else { break };
            self.count(&call);
        }
    }

    fn count(&mut self, Call { number, result }: &Call) {
        if result.is_finished() {
            self.tally.finished += 1;
        } else {
            self.tally.failed += 1;
        }
        if self.open.remove(number) == Some(result.id()) {
            self.tally.callbacked += 1;
        }
    }
}

#[derive(Default)]
struct Tally {
    submitted: u64,
    finished: u64,
    failed: u64,
    /// Submissions whose own callback was called with their own result.
    callbacked: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { submitted, finished, failed, callbacked } = self;
        write!(
            f,
            "submitted={submitted} finished={finished} failed={failed} callbacked={callbacked}"
        )
    }
}
