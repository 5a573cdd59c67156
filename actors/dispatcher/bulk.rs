//! Many tasks in one message.

use actix::Handler;

use super::context::DispatcherContext;
use super::reply::{Reply, Submitted};
use super::Dispatcher;
use crate::actors::ledger::Waiter;
use crate::actors::messages::{Submit, SubmitAll};
use crate::error::{Error, Result};
use crate::proof::Point;
use crate::record::TaskId;

/// What is wrong with a bulk submission whose keys are in several shards.
pub(crate) const KEYS_APART: &str = "keys of several shards in one bulk";

/// A bulk submission has more than `limits.bulk` tasks.
pub(crate) fn too_many(tasks: usize) -> Error {
    Error::InvalidOption {
        option: "tasks",
        given: tasks.to_string(),
        allowed: "at most limits.bulk tasks at once",
    }
}

impl Handler<SubmitAll> for Dispatcher {
    type Result = Submitted;

    fn handle(&mut self, mut message: SubmitAll, context: &mut DispatcherContext) -> Submitted {
        let tasks = message.tasks.len();
        if tasks == 0 {
            return Submitted(Reply::Empty);
        }
        let accepted = self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherSubmitAll);
            if tasks > dispatcher.shared.settings.limits.bulk {
                return Err(too_many(tasks));
            }
            let mut ids = message.tasks.iter().filter_map(Submit::id);
            let wanted = ids.next();
            let shard = wanted.map(TaskId::shard);
            if let Some(other) = ids.find(|id| Some(id.shard()) != shard) {
                return Err(Error::InvalidOption {
                    option: "with_id",
                    given: format!("{other} beside the id of another shard"),
                    allowed: "ids of one shard in one submission",
                });
            }
            let weight = || message.tasks.iter().map(Submit::weight).sum();
            let permit = dispatcher.permit(message.permit.take(), tasks, weight)?;
            let accepted = message.tasks.into_iter().map(|submit| dispatcher.accept(submit));
            let accepted = accepted.collect::<Result<Vec<_>>>()?;
            let mut keys = accepted.iter().filter_map(|of| of.task.key.as_deref());
            let key = keys.next();
            let shard = key.map(|key| dispatcher.shared.shard_of_key(key));
            if keys.any(|other| Some(dispatcher.shared.shard_of_key(other)) != shard) {
                return Err(Error::InvalidOption {
                    option: "key",
                    given: KEYS_APART.into(),
                    allowed: "keys of one shard, because a bulk is stored in one transaction",
                });
            }
            let index = dispatcher.route(wanted, key)?;
            dispatcher.enqueue(index, accepted, permit, Waiter::All(None));
            Ok(index)
        });
        match accepted {
            Ok(index) => {
                self.arm(context);
                Submitted(Reply::Accepted { outgoing: self.outgoing.clone(), index })
            }
            Err(error) => self.refused(tasks, error),
        }
    }
}
