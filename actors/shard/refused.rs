//! After a batch that wasn't stored, or of which nobody knows.

use std::time::Duration;

use actix::{ActorContext, AsyncContext, Context};

use super::collect::InFlight;
use super::{Asked, Inbox, ShardActor};
use crate::actors::messages::Wake;
use crate::actors::supervision::ChildEnd;
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::store::ShardStore;

/// How often a shard looks whether the disk has room for the ballast again: while submissions are
/// refused for it, and otherwise.
const RESTORE_EVERY: Duration = Duration::from_secs(1);
const RESTORE_SOME_DAY: Duration = Duration::from_secs(60);

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
        let InFlight { inbox, grant, batch } = flight;
        if let Some(grant) = grant {
            self.shared.wake(grant.give_back(false));
        }
        let Inbox { mut asked, mut finishes, mut delivered } = inbox;
        asked.incoming.put_back(batch.submissions);
        if error.kind() == StoreErrorKind::Io {
            self.refuse_asked(asked, error);
            self.give_up_file(context);
            return;
        }
        if error.kind() == StoreErrorKind::Full {
            self.shared.free_ballast();
            self.restore_ballast_later(context);
        }
        let ends = !finishes.is_empty() || !delivered.is_empty();
        let alone = self.ends_only;
        let busy = error.kind() == StoreErrorKind::Busy;
        self.ends_only = ends && !busy;
        let spared = ends && !alone && !self.second_try;
        self.second_try |= spared && !busy;
        self.inbox.finishes.append(&mut finishes);
        self.inbox.delivered.append(&mut delivered);
        // behind it stands what was too much for the batch, or was kept while ends went alone
        if busy || spared || alone {
            asked.append(std::mem::replace(&mut self.inbox.asked, Asked::new(&self.ledger)));
        }
        if busy || spared {
            self.inbox.asked = asked;
        } else {
            self.refuse_asked(asked, error);
        }
        if ends && !busy && !alone {
            self.arm(context);
        } else {
            self.pausing = true;
            self.shared.wake(self.shared.slots.stores_nothing(self.ledger.id));
            context.run_later(RETRY_PAUSE, |actor, context| {
                actor.pausing = false;
                // a batch with all that waits says whether the trouble is over
                actor.ends_only = false;
                context.address().do_send(Wake);
            });
        }
    }

    /// On a full disk the space that the ballast has freed is for ends. Submissions are refused at
    /// once, until there is room for the ballast again.
    pub(super) fn refuse_without_space(&mut self) {
        if !self.inbox.asked.incoming.is_empty() && self.shared.is_short_of_space() {
            let incoming = self.inbox.asked.incoming.take_all();
            let shard = self.ledger.id;
            self.shared.callback.refuse(incoming, || Error::DiskFull { shard });
        }
    }

    /// Takes the ballast again when there is room for it, also if nothing else happens.
    pub(super) fn restore_ballast_later(&mut self, context: &mut Context<Self>) {
        if !self.shared.misses_ballast() {
            return;
        }
        let short = self.shared.is_short_of_space();
        let later = if short { RESTORE_EVERY } else { RESTORE_SOME_DAY };
        match self.restoring.take() {
            // it may have been armed before the disk was full
            Some((armed, handle)) if later < armed => drop(context.cancel_future(handle)),
            Some(armed) => {
                self.restoring = Some(armed);
                return;
            }
            None => {}
        }
        let handle = context.run_later(later, |actor, context| {
            actor.restoring = None;
            actor.shared.restore_ballast();
            actor.restore_ballast_later(context);
        });
        self.restoring = Some((later, handle));
    }

    /// Refuses what callers asked for.
    fn refuse_asked(&self, asked: Asked, error: &StoreError) {
        let refuse = |action| error.clone().on(self.ledger.id, action);
        self.shared.callback.refuse(asked.incoming, || refuse("store tasks"));
        for cancel in asked.cancels {
            drop(cancel.answer.send(Err(refuse("cancel a task"))));
        }
        for redrive in asked.redrives {
            drop(redrive.answer.send(Err(refuse("redrive a task"))));
        }
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
        let unanswered = flight.inbox.asked.incoming.into_unanswered().into_iter();
        self.ledger.unanswered().extend(unanswered.map(|answer| (answer, error.clone())));
        self.give_up_file(context);
    }

    /// After an I/O error the file is closed and opened anew, by another actor: what the page cache
    /// and the log hold isn't to be trusted. What this one had in hand is in the ledger.
    pub(super) fn give_up_file(&mut self, context: &mut Context<Self>) {
        // dropped, it tells its callers that the shard is away
        let incoming = self.inbox.asked.incoming.take_all();
        self.shared.callback.let_go(incoming);
        self.end.set(ChildEnd::Faulted);
        context.stop();
    }
}
