//! Keeping actors alive.
//!
//! actix's own Supervisor restarts an actor that stops, never one that panics. This one awaits the
//! actor's future: when that ends in a panic, a factory makes a new actor on the same thread, after
//! a pause that grows, and everybody's [`Link`] leads to it. An actor that panics, or can't be built,
//! more often than its budget allows is quarantined: nothing is sent to it, and now and then one is tried again.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context};
use tokio::time::Instant;

use super::ledger::Link;
use crate::proof::Points;
use crate::settings::Supervision;

/// An actor that lived for this long before its file failed begins with the shortest pause again.
const FAULTS_APART: Duration = Duration::from_secs(10);

/// Why an actor's future ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    /// It was told to, and is not to come back.
    Stopped,
    /// It ended itself to be rebuilt, because its file failed. That isn't counted.
    Faulted,
    /// It panicked.
    Panicked,
}

/// What a supervised actor is, beside the actor itself.
pub(crate) trait Child {
    type Actor: Actor<Context = Context<Self::Actor>>;

    /// The proofs' places of its queue.
    fn points(&self) -> &Points;

    /// Names it in the log.
    fn name(&self) -> String;

    /// Makes a new actor; an error is tried again after a pause.
    fn build(&mut self) -> impl Future<Output = Result<Self::Actor, crate::Error>>;

    /// A new actor is up: send it what its predecessor left open.
    fn started(&mut self, address: &Addr<Self::Actor>);

    /// What kind of end it was, of one that didn't panic.
    fn end(&mut self) -> ChildEnd {
        ChildEnd::Stopped
    }

    /// An actor has ended, or none could be built; unless it was told to end, a new one will be.
    fn ended(&mut self, _end: ChildEnd) {}

    /// Whether the budget is spent, and no probe could be built since.
    fn quarantine(&mut self, _on: bool) {}
}

/// Runs a child until it is told to stop. Spawn it on the thread that the actor is to live on.
pub(crate) async fn supervise<C: Child>(
    mut child: C,
    link: Arc<impl AsRef<Link<C::Actor>>>,
    budget: Supervision,
) {
    let link = || (*link).as_ref();
    let mut panics = Panics::new(&budget);
    let mut quarantined = false;
    let mut faults = 0;
    loop {
        let began = Instant::now();
        let ended = run_once(&mut child, link()).await;
        let at_once = began.elapsed() < FAULTS_APART;
        faults =
            if ended.as_ref().ok() == Some(&ChildEnd::Faulted) && at_once { faults + 1 } else { 0 };
        link().set(None);
        // what was built ended a quarantine
        quarantined &= ended.is_err();
        child.ended(*ended.as_ref().unwrap_or(&ChildEnd::Faulted));
        match ended {
            Ok(ChildEnd::Stopped) => return,
            Ok(ChildEnd::Panicked) => {
                tracing::error!(actor = child.name(), "an actor panicked; it is rebuilt");
                child.points().lost();
                panics.count();
            }
            Ok(ChildEnd::Faulted) => {
                tracing::warn!(actor = child.name(), "an actor gave up its file; it is rebuilt");
            }
            Err(error) => {
                tracing::error!(actor = child.name(), %error, "an actor cannot be built");
                panics.count();
            }
        }
        quarantined |= panics.over_budget();
        child.quarantine(quarantined);
        if quarantined {
            tracing::error!(actor = child.name(), "an actor fails too often; quarantined");
            tokio::time::sleep(budget.probe).await;
        } else {
            tokio::time::sleep(panics.pause(faults)).await;
        }
    }
}

async fn run_once<C: Child>(
    child: &mut C,
    link: &Link<C::Actor>,
) -> Result<ChildEnd, crate::Error> {
    let built = CatchUnwind(Box::pin(child.build())).await;
    let Ok(actor) = built else { return Ok(ChildEnd::Panicked) };
    let actor = actor?;
    let mut context = Context::new();
    // no actix mailbox is bounded by its capacity anyway; credits and permits bound this one
    context.set_mailbox_capacity(0);
    let address = context.address();
    let running = actix_rt::spawn(context.into_future(actor));
    link.set(Some(address.clone()));
    child.quarantine(false);
    child.started(&address);
    drop(address);
    match running.await {
        Ok(()) => Ok(child.end()),
        Err(_) => Ok(ChildEnd::Panicked),
    }
}

/// Polls a future, turning a panic into an error.
struct CatchUnwind<F>(F);

impl<F: Future + Unpin> Future for CatchUnwind<F> {
    type Output = Result<F::Output, ()>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let inner = std::pin::Pin::new(&mut self.0);
        match std::panic::catch_unwind(AssertUnwindSafe(|| inner.poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => std::task::Poll::Ready(Err(())),
        }
    }
}

/// The panics of the last while.
struct Panics {
    budget: Supervision,
    recent: VecDeque<Instant>,
}

impl Panics {
    fn new(budget: &Supervision) -> Self {
        Panics { budget: budget.clone(), recent: VecDeque::new() }
    }

    fn count(&mut self) {
        self.recent.push_back(Instant::now());
    }

    fn forget_old(&mut self) {
        let within = self.budget.within;
        while self.recent.front().is_some_and(|panic| panic.elapsed() > within) {
            self.recent.pop_front();
        }
    }

    fn over_budget(&mut self) -> bool {
        self.forget_old();
        self.recent.len() > self.budget.restarts as usize
    }

    /// Doubles with each recent panic, or with each fault that follows closely on another.
    fn pause(&mut self, faults: usize) -> Duration {
        self.forget_old();
        let doublings = self.recent.len().max(faults).saturating_sub(1).min(16) as u32;
        let pause = self.budget.backoff_min.saturating_mul(1 << doublings);
        pause.min(self.budget.backoff_max)
    }
}
