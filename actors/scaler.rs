//! The number of shards that take tasks: measured here, decided in `src/scaling.rs`, done here.
//!
//! It lives on the system's thread and looks while there is traffic. When nothing comes and no
//! retirement is to wait for, it sleeps without a timer until the Dispatcher sends something on: an
//! idle queue does nothing. Opening a file is done by the thread of the shard to be.

mod lost;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use lost::Lost;

use super::ledger::{ShardLedger, ShardState, Sums};
use super::messages::MoveSlots;
use super::shard::ShardChild;
use super::supervision::supervise;
use super::system::{Shared, Thread};
use crate::error::StoreError;
use crate::scaling::{Controller, Decision, Figures, Load, TICK};
use crate::store::{OpenKind, Recovered, shard_file};

/// How long a shutdown waits for a shard that is being added.
const GRACE: Duration = Duration::from_secs(5);

/// Wakes the scaler when there is traffic after a while without.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sleeps: AtomicBool,
    came: Notify,
}

impl Traffic {
    /// Submissions are on their way to a shard.
    pub(crate) fn stir(&self) {
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            self.came.notify_one();
        }
    }

    /// Waits until there are.
    async fn next(&self) {
        self.sleeps.store(true, Ordering::Relaxed);
        self.came.notified().await;
    }

    /// Nobody waits any more.
    fn ignore(&self) {
        self.sleeps.store(false, Ordering::Relaxed);
    }
}

/// The threads of all shards, those that were added later too.
#[derive(Clone, Default)]
pub(super) struct ShardThreads(Rc<RefCell<Vec<Arbiter>>>);

impl ShardThreads {
    /// Starts one more. On the system's thread only.
    pub(super) fn start(&self) -> std::io::Result<Thread> {
        Thread::start(&mut self.0.borrow_mut())
    }

    pub(super) fn take(&self) -> Vec<Arbiter> {
        self.0.take()
    }
}

/// Opens a shard's file on its thread, as a new one if there is none, and has its actor run there.
/// Answered once that is up: what is sent to it before would be refused.
pub(super) fn open_on(
    thread: &Thread,
    shared: &Arc<Shared>,
    ledger: &Arc<ShardLedger>,
) -> oneshot::Receiver<Result<Recovered, StoreError>> {
    let (answer, answered) = oneshot::channel();
    let (shared, ledger) = (shared.clone(), ledger.clone());
    thread.spawn_fn(move || {
        // the manifest names it before there is a file
        let named = shared
            .directory()
            .and_then(|directory| directory.ensure_shards(ledger.id.0.saturating_add(1)).map(drop));
        let opened = named.and_then(|()| super::shard::open(&shared, &ledger, OpenKind::First));
        match opened {
            Ok((store, recovered)) => {
                let budget = shared.settings.supervision.clone();
                let up = move || drop(answer.send(Ok(recovered)));
                let child = ShardChild::new(ledger.clone(), shared, store, up);
                actix_rt::spawn(supervise(child, ledger, budget));
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    });
    answered
}

/// A scaler at work.
pub(super) struct Scaling {
    /// Ends it when it is dropped.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Scaling {
    /// Ends it. A shard that is being added comes up first, or is left behind.
    pub(super) async fn end(self) {
        drop(self.stop);
        match timeout(GRACE, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what follows the load has panicked"),
            Err(_) => tracing::warn!("a shard that is being added doesn't come up in time"),
        }
    }
}

/// Whether a shard that takes no tasks could: one that was retired and is well, or one that there isn't
/// yet.
fn may_be_had(ledger: &ShardLedger) -> bool {
    ledger.is_absent() || !ledger.is_active() && ledger.state() == ShardState::Open
}

/// Looks at the load and has shards take tasks or not.
pub(super) struct Scaler {
    shared: Arc<Shared>,
    threads: ShardThreads,
    controller: Controller,
    /// The thread of a shard that couldn't be opened.
    spare: Option<Thread>,
    lost: Lost,
}

/// The sums of the shards that take tasks, at one moment.
struct Reading {
    at: Instant,
    sums: Sums,
}

impl Scaler {
    /// Begins to follow the load, on the system's thread. A fixed number needs no following.
    pub(super) fn spawn(shared: &Arc<Shared>, threads: &ShardThreads) -> Scaling {
        let (stop, stopped) = oneshot::channel();
        let settings = &shared.settings.shards;
        let range = settings.resolved_range();
        let follows = range.start() < range.end();
        let controller = Controller::new(range, settings.target_wait, settings.retire_after);
        let (shared, threads) = (shared.clone(), threads.clone());
        let scaler = Scaler { shared, threads, controller, spare: None, lost: Lost::default() };
        let task = actix_rt::spawn(async move {
            if follows {
                scaler.run(stopped).await;
            }
        });
        Scaling { stop, task }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = shared.traffic.next() => {}
            }
            let mut last = self.read();
            let mut pause = Some(TICK);
            while let Some(length) = pause {
                tokio::select! {
                    _ = &mut stopped => return,
                    () = tokio::time::sleep(length) => {}
                    () = shared.traffic.next(), if length > TICK => {}
                }
                shared.traffic.ignore();
                if self.replace_lost().await {
                    last = self.read();
                }
                if let Some(wait) = self.waits_for_shards() {
                    // an outage isn't a load
                    self.controller.watch_anew();
                    last = self.read();
                    pause = Some(wait);
                    continue;
                }
                let now = self.read();
                let advice = self.controller.advise(&self.figures(&last, &now));
                pause = advice.again;
                last = now;
                if let Some(decision) = advice.decision {
                    self.carry_out(decision).await;
                    // another number of shards
                    last = self.read();
                }
            }
        }
    }

    fn active(&self) -> impl Iterator<Item = &Arc<ShardLedger>> {
        self.shared.shards.iter().filter(|ledger| ledger.is_active())
    }

    fn read(&self) -> Reading {
        let sums = self.active().map(|ledger| ledger.gauges.sums());
        let sums = sums.fold(Sums::default(), |all, one| Sums {
            stored: all.stored + one.stored,
            waited_s: all.waited_s + one.waited_s,
            committing_s: all.committing_s + one.committing_s,
            syncing_s: all.syncing_s + one.syncing_s,
            commits: all.commits + one.commits,
        });
        Reading { at: Instant::now(), sums }
    }

    fn figures(&self, last: &Reading, now: &Reading) -> Figures {
        Figures {
            seconds: now.at.duration_since(last.at).as_secs_f64(),
            stored: now.sums.stored - last.sums.stored,
            waited_s: now.sums.waited_s - last.sums.waited_s,
            committing_s: now.sums.committing_s - last.sums.committing_s,
            syncing_s: now.sums.syncing_s - last.sums.syncing_s,
            commits: now.sums.commits - last.sums.commits,
            pending: self.active().map(|of| of.gauges.incoming.load(Ordering::Acquire)).sum(),
            failing: self.active().any(|ledger| ledger.gauges.is_failing(now.at)),
            active: self.shared.active(),
            last: self.active().last().map_or(0, |ledger| ledger.id.index()),
        }
    }

    async fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Grow { .. } if !self.shared.shards.iter().any(|of| may_be_had(of)) => {
                self.controller.none_there();
            }
            Decision::Grow { load } => {
                let (Load { per_s, wait_s, busy, .. }, shards) = (load, self.shared.active());
                let why = "submissions wait for long; one more shard is tried";
                tracing::info!(shards, per_s, wait_s, busy, "{why}");
                self.grow().await;
            }
            Decision::Keep { shard, before, after } => {
                self.log_trial(shard, &before, &after, "the shard on trial is of use, and stays");
            }
            Decision::GiveUp { shard, before, after } => {
                self.retire(shard);
                let what = "the shard on trial is of no use, and takes no new tasks";
                self.log_trial(shard, &before, &after, what);
            }
            Decision::Retire { shard, load } => {
                self.retire(shard);
                let (shard, shards) = (self.shared.shards[shard].id, self.shared.active());
                let Load { per_s, wait_s, busy, .. } = load;
                let why = "the other shards have much room; one takes no new tasks";
                tracing::info!(%shard, shards, per_s, wait_s, busy, "{why}");
            }
        }
    }

    fn retire(&self, shard: usize) {
        // the others may have been lost since
        if self.shared.active() == 1 {
            return;
        }
        self.shared.set_active(&self.shared.shards[shard], false);
        self.shared.dispatcher.send(MoveSlots);
    }

    fn log_trial(&self, shard: usize, before: &Load, after: &Load, what: &str) {
        tracing::info!(
            shard = %self.shared.shards[shard].id,
            shards = self.shared.active(),
            per_s_before = before.per_s,
            per_s = after.per_s,
            wait_s_before = before.wait_s,
            wait_s = after.wait_s,
            busy_before = before.busy,
            busy = after.busy,
            "{what}"
        );
    }

    async fn grow(&mut self) {
        match self.find_one_more().await {
            Ok((ledger, how)) => {
                self.shared.set_active(&ledger, true);
                // a trial is of the keys' load as well
                self.shared.dispatcher.send(MoveSlots);
                self.controller.grew(ledger.id.index());
                let (shard, shards) = (ledger.id, self.shared.active());
                tracing::info!(%shard, shards, how, "a shard takes tasks, on trial");
            }
            Err(error) => {
                let pause = self.controller.could_not_grow();
                let shards = self.shared.active();
                tracing::warn!(shards, error, ?pause, "no shard can be added; that is tried again");
            }
        }
    }

    /// Finds a shard that may take tasks: one that was retired, which costs nothing, or a new one.
    async fn find_one_more(&mut self) -> Result<(Arc<ShardLedger>, &'static str), String> {
        let shared = self.shared.clone();
        let retired = |ledger: &&Arc<ShardLedger>| may_be_had(ledger) && !ledger.is_absent();
        if let Some(ledger) = shared.shards.iter().find(retired) {
            return Ok((ledger.clone(), "taken back"));
        }
        let Some(ledger) = shared.shards.iter().find(|ledger| ledger.is_absent()) else {
            return Err("each shard takes tasks or is out of service".into());
        };
        let thread = match self.spare.take() {
            Some(thread) => thread,
            None => self.threads.start().map_err(|error| error.to_string())?,
        };
        let opened = open_on(&thread, &shared, ledger).await;
        let error = match opened {
            Ok(Ok(_)) => return Ok((ledger.clone(), "added")),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the thread of {} panicked", shard_file(ledger.id)),
        };
        self.spare = Some(thread);
        Err(error)
    }
}

#[cfg(test)]
mod tests;
