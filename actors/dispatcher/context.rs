//! The Dispatcher's actix context: what happens to a message before it is in the mailbox.
//!
//! No actix mailbox is bounded: `do_send` always accepts. What comes by [`Queue`](crate::Queue)
//! holds a permit, which bounds it. What callers send to the Dispatcher's address has none, and can
//! come faster than the Dispatcher's thread is given time to refuse it. So the sender's own thread
//! decides, where the message is packed for the mailbox: beyond a bound it is dropped there, and
//! only the news that it was goes on.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::dev::{
    AsyncContextParts, ContextFut, ContextParts, Envelope, EnvelopeProxy, Mailbox, MessageResponse,
    OneshotSender, ToEnvelope,
};
use actix::{
    ActorContext, ActorFuture, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle,
};

use super::Dispatcher;
use crate::actors::ledger::Waiter;
use crate::actors::messages::{Submit, SubmitAll};
use crate::error::Result;
use crate::record::TaskId;

/// How many tasks without a permit may stand in the mailboxes of all Dispatchers of the process, and
/// how many bytes their arguments may have. Where nothing else stands, more may.
const TASKS_MAX: usize = 4_096;
const BYTES_MAX: usize = 4 << 20;

/// How often a sender lets other threads run before its message is refused: a burst is let through,
/// at the pace of the Dispatcher.
const YIELDS: usize = 16;

/// What stands there now. For all of them, because nothing says in whose mailbox a message will be.
static TASKS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The context that a [`Dispatcher`] runs in. Only actix has a use for it.
pub struct DispatcherContext {
    parts: ContextParts<Dispatcher>,
}

impl DispatcherContext {
    /// Starts a Dispatcher on this thread's System.
    pub(crate) fn start(dispatcher: Dispatcher) -> Addr<Dispatcher> {
        let mailbox = Mailbox::default();
        let context = DispatcherContext { parts: ContextParts::new(mailbox.sender_producer()) };
        let running = ContextFut::new(context, dispatcher, mailbox);
        let address = running.address();
        actix_rt::spawn(running);
        address
    }

    pub(super) fn set_mailbox_capacity(&mut self, messages: usize) {
        self.parts.set_mailbox_capacity(messages);
    }
}

impl fmt::Debug for DispatcherContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DispatcherContext")
    }
}

impl ActorContext for DispatcherContext {
    fn stop(&mut self) {
        self.parts.stop();
    }

    fn terminate(&mut self) {
        self.parts.terminate();
    }

    fn state(&self) -> ActorState {
        self.parts.state()
    }
}

impl AsyncContext<Dispatcher> for DispatcherContext {
    fn address(&self) -> Addr<Dispatcher> {
        self.parts.address()
    }

    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<Dispatcher, Output = ()> + 'static,
    {
        self.parts.spawn(future)
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<Dispatcher, Output = ()> + 'static,
    {
        self.parts.wait(future);
    }

    fn waiting(&self) -> bool {
        self.parts.waiting()
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }
}

impl AsyncContextParts<Dispatcher> for DispatcherContext {
    fn parts(&mut self) -> &mut ContextParts<Dispatcher> {
        &mut self.parts
    }
}

/// How much a message brings that holds no permit.
#[derive(Clone, Copy)]
struct Bare {
    tasks: usize,
    bytes: usize,
}

impl Bare {
    /// `None` if something else bounds the message.
    fn of(message: &dyn Any) -> Option<Bare> {
        if let Some(submit) = message.downcast_ref::<Submit>() {
            let bare = submit.permit.is_none();
            return bare.then(|| Bare { tasks: 1, bytes: submit.bytes() });
        }
        let SubmitAll { tasks, permit } = message.downcast_ref()?;
        let bare = permit.is_none() && !tasks.is_empty();
        bare.then(|| Bare { tasks: tasks.len(), bytes: tasks.iter().map(Submit::bytes).sum() })
    }
}

/// A message's place in the mailboxes. It is free again when this is dropped.
struct Place(Bare);

impl Place {
    /// A place for it, if there is one.
    fn take(bare: Bare) -> Option<Place> {
        let tasks = TASKS.fetch_add(bare.tasks, Ordering::AcqRel);
        let bytes = BYTES.fetch_add(bare.bytes, Ordering::AcqRel);
        let place = Place(bare);
        let fits = tasks == 0
            || tasks.saturating_add(bare.tasks) <= TASKS_MAX
                && bytes.saturating_add(bare.bytes) <= BYTES_MAX;
        fits.then_some(place)
    }
}

impl Place {
    /// Lets the Dispatcher run before it gives up.
    fn take_soon(bare: Bare) -> Option<Place> {
        for _ in 0..YIELDS {
            if let Some(place) = Place::take(bare) {
                return Some(place);
            }
            std::thread::yield_now();
        }
        Place::take(bare)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TASKS.fetch_sub(self.0.tasks, Ordering::AcqRel);
        BYTES.fetch_sub(self.0.bytes, Ordering::AcqRel);
    }
}

impl<M> ToEnvelope<Dispatcher, M> for DispatcherContext
where
    Dispatcher: Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// Runs where the message is sent.
    fn pack(message: M, answer: Option<OneshotSender<M::Result>>) -> Envelope<Dispatcher> {
        let Some(bare) = Bare::of(&message) else { return Envelope::new(message, answer) };
        match Place::take_soon(bare) {
            Some(place) => {
                let message = Some(message);
                Envelope::with_proxy(Box::new(Standing { message, answer, _place: place }))
            }
            None => {
                // the user's values, on the user's thread
                drop(message);
                refused(bare.tasks, answer)
            }
        }
    }
}

/// A message that has a place in the mailbox.
struct Standing<M: Message> {
    message: Option<M>,
    answer: Option<OneshotSender<M::Result>>,
    _place: Place,
}

impl<M> EnvelopeProxy<Dispatcher> for Standing<M>
where
    Dispatcher: Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, dispatcher: &mut Dispatcher, context: &mut DispatcherContext) {
        let answer = self.answer.take();
        // as actix does it: who doesn't wait any more has taken the message back
        if answer.as_ref().is_some_and(|answer| answer.is_closed()) {
            return;
        }
        if let Some(message) = self.message.take() {
            let response = <Dispatcher as Handler<M>>::handle(dispatcher, message, context);
            response.handle(context, answer);
        }
    }
}

/// The news that tasks were refused where they were sent.
fn refused<R: 'static>(tasks: usize, answer: Option<OneshotSender<R>>) -> Envelope<Dispatcher> {
    if answer.is_none() && tasks == 1 {
        // a box of nothing: it takes no memory beside its link in the mailbox
        return Envelope::with_proxy(Box::new(OneRefused));
    }
    Envelope::with_proxy(Box::new(Refused { tasks, waiter: waiter(answer) }))
}

/// Who waits for the answer to a [`Submit`] or a [`SubmitAll`].
fn waiter<R: 'static>(mut answer: Option<OneshotSender<R>>) -> Waiter {
    let answer: &mut dyn Any = &mut answer;
    if let Some(one) = answer.downcast_mut::<Option<OneshotSender<Result<TaskId>>>>() {
        return Waiter::One(one.take());
    }
    Waiter::All(answer.downcast_mut().and_then(Option::take))
}

/// One task was refused, and nobody waits for the answer.
struct OneRefused;

impl EnvelopeProxy<Dispatcher> for OneRefused {
    fn handle(&mut self, dispatcher: &mut Dispatcher, context: &mut DispatcherContext) {
        dispatcher.refuse_as_busy(1, Waiter::One(None), context);
    }
}

/// Tasks were refused.
struct Refused {
    tasks: usize,
    waiter: Waiter,
}

impl EnvelopeProxy<Dispatcher> for Refused {
    fn handle(&mut self, dispatcher: &mut Dispatcher, context: &mut DispatcherContext) {
        let waiter = std::mem::replace(&mut self.waiter, Waiter::One(None));
        dispatcher.refuse_as_busy(self.tasks, waiter, context);
    }
}
