//! After a batch that wasn't stored, or of which nobody knows.

use std::time::Duration;

use actix::{ActorContext, AsyncContext, Context};

use super::collect::InFlight;
use super::{Inbox, ShardActor};
use crate::actors::incoming::Incoming;
use crate::actors::messages::Wake;
use crate::actors::supervision::ChildEnd;
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::store::ShardStore;

/// How long a shard waits before it tries again to store what was refused.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);

impl<S: ShardStore> ShardActor<S> {
    /// Nothing was stored. Ends are tried again by themselves, first alone: on a full disk they are
    /// what frees space. What callers asked for has a second try after them and is refused then.
    /// While another program holds the file, nobody is told anything: all of it waits.
    pub(super) fn refused(
        &mut self,
        flight: InFlight,
        error: &StoreError,
        context: &mut Context<Self>,
    ) {
        tracing::warn!(shard = %self.ledger.id, %error, "a batch was refused");
        let InFlight { mut inbox, grant, batch } = flight;
        if let Some(grant) = grant {
            self.shared.wake(grant.give_back(false));
        }
        inbox.incoming.put_back(batch.submissions);
        if error.kind() == StoreErrorKind::Io {
            self.refuse_asked(inbox, error);
            self.give_up_file(context);
            return;
        }
        if error.kind() == StoreErrorKind::Full {
            self.shared.free_ballast();
        }
        let ends = !inbox.finishes.is_empty() || !inbox.delivered.is_empty();
        let alone = self.ends_only;
        let busy = error.kind() == StoreErrorKind::Busy;
        self.ends_only = ends && !busy;
        let spared = ends && !alone && !self.second_try;
        self.second_try |= spared && !busy;
        inbox.finishes.append(&mut self.inbox.finishes);
        self.inbox.finishes = std::mem::take(&mut inbox.finishes);
        inbox.delivered.append(&mut self.inbox.delivered);
        self.inbox.delivered = std::mem::take(&mut inbox.delivered);
        if busy || spared {
            self.keep_asked(inbox);
        } else {
            self.refuse_asked(inbox, error);
            if alone {
                let waiting = std::mem::replace(&mut self.inbox, Inbox::new(&self.ledger));
                let Inbox { finishes, delivered, .. } = self.refuse_asked(waiting, error);
                (self.inbox.finishes, self.inbox.delivered) = (finishes, delivered);
            }
        }
        if ends && !busy && !alone {
            self.arm(context);
        } else {
            self.pausing = true;
            context.run_later(RETRY_PAUSE, |actor, context| {
                actor.pausing = false;
                // a batch with all that waits says whether the trouble is over
                actor.ends_only = false;
                context.address().do_send(Wake);
            });
        }
    }

    /// Puts what callers asked for back at the head of what waits.
    fn keep_asked(&mut self, mut inbox: Inbox) {
        inbox.incoming.append(self.inbox.incoming.take_all());
        self.inbox.incoming = inbox.incoming;
        inbox.cancels.append(&mut self.inbox.cancels);
        self.inbox.cancels = inbox.cancels;
        inbox.redrives.append(&mut self.inbox.redrives);
        self.inbox.redrives = inbox.redrives;
    }

    /// Refuses what callers asked for; gives back the rest.
    fn refuse_asked(&self, mut inbox: Inbox, error: &StoreError) -> Inbox {
        let refuse = |action| error.clone().on(self.ledger.id, action);
        self.refuse_submissions(inbox.incoming.take_all(), || refuse("store tasks"));
        for cancel in inbox.cancels.drain(..) {
            drop(cancel.answer.send(Err(refuse("cancel a task"))));
        }
        for redrive in inbox.redrives.drain(..) {
            drop(redrive.answer.send(Err(refuse("redrive a task"))));
        }
        inbox
    }

    /// The commit failed: whether it worked is on the disk only. The actor is rebuilt from there,
    /// and answers then.
    pub(super) fn unknown(
        &mut self,
        flight: InFlight,
        error: &StoreError,
        context: &mut Context<Self>,
    ) {
        tracing::error!(shard = %self.ledger.id, %error, "a commit's outcome is unknown");
        if let Some(grant) = flight.grant {
            self.shared.wake(grant.give_back(false));
        }
        if error.kind() == StoreErrorKind::Full {
            self.shared.free_ballast();
        }
        let unanswered = flight.inbox.incoming.into_unanswered().into_iter();
        self.ledger.unanswered().extend(unanswered.map(|answer| (answer, error.clone())));
        self.give_up_file(context);
    }

    /// After an I/O error the file is closed and opened anew, by another actor: what the page cache
    /// and the log hold isn't to be trusted. What this one had in hand is in the ledger.
    pub(super) fn give_up_file(&mut self, context: &mut Context<Self>) {
        let incoming = self.inbox.incoming.take_all();
        if incoming.holds_values() {
            // dropped there, it tells its callers that the shard is away
            self.shared.callback.discard(incoming);
        }
        self.end.set(ChildEnd::Faulted);
        context.stop();
    }

    /// Tells callers that nothing was stored.
    pub(super) fn refuse_submissions(&self, mut incoming: Incoming, error: impl Fn() -> Error) {
        incoming.refuse(error);
        if incoming.holds_values() {
            self.shared.callback.discard(incoming);
        }
    }
}
