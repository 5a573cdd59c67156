//! What a queue must be able to do to be measured, and help to do it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{AnyError, Report, Runs};

/// How often a peer that doesn't tell is asked whether a task is recorded as done.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// An open queue. Tasks are given by their numbers; their arguments are [`crate::payload`]s, and
/// each calls [`Runs::ran`] and does nothing else.
#[allow(async_fn_in_trait, reason = "only the programs here use it, on one thread")]
pub trait Peer {
    /// Whether it has an interface for many tasks at once.
    const BULK: bool;

    /// Starts the workers.
    async fn start(&self) -> Result<(), AnyError>;

    /// Stores one task and returns when the peer says that it is stored.
    async fn submit(&self, task: usize) -> Result<(), AnyError>;

    /// Stores tasks one by one, by as many submitters as the peer is fastest with. A submission that
    /// fails is counted by [`Runs::refused`].
    async fn submit_each(&self, tasks: Range<usize>) -> Result<(), AnyError>;

    /// Stores tasks by the interface for many.
    async fn submit_bulk(&self, tasks: Range<usize>) -> Result<(), AnyError>;

    /// How many tasks are in the file that aren't recorded as done.
    async fn unrecorded(&self) -> Result<usize, AnyError>;

    /// Waits until so many tasks are recorded as done since the start. One is under way.
    async fn until_done(&self, tasks: usize) -> Result<(), AnyError> {
        let _ = tasks;
        while self.unrecorded().await? > 0 {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Adds to the report what a connection says of itself.
    async fn describe(&self, report: &mut Report) -> Result<(), AnyError>;
}

/// Calls `submit` with each number, by so many submitters at once, each of which waits for the end
/// of a call before its next.
pub async fn spread<F, Fut>(submitters: usize, numbers: Range<usize>, submit: F)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), AnyError>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let submitters: Vec<_> = (0..submitters.max(1))
        .map(|_| {
            let (next, submit, end) = (next.clone(), submit.clone(), numbers.end);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= end {
                        break;
                    }
                    if let Err(error) = submit(number).await {
                        Runs::here().refused(error.to_string());
                    }
                }
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await.expect("a submitter counts its errors and doesn't panic");
    }
}

/// Prints the report and ends the process, whatever of the peer still runs.
pub fn answer(report: Result<Report, AnyError>) -> ! {
    let line = report.and_then(|report| Ok(serde_json::to_string(&report)?));
    match line {
        Ok(line) => {
            println!("{line}");
            std::process::exit(0)
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1)
        }
    }
}
