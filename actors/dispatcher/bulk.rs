//! Many tasks in one message.

use std::collections::BTreeMap;

use actix::Handler;
use tokio::sync::oneshot;

use super::Dispatcher;
use super::context::DispatcherContext;
use super::reply::{Reply, Submitted};
use crate::actors::incoming::kib;
use crate::actors::ledger::Waiter;
use crate::actors::messages::{Part, Submit, SubmitAll, SubmitKeyed};
use crate::admission::{Demand, Permit};
use crate::error::{Error, Result};
use crate::panic_message::OneByOne;
use crate::proof::Point;
use crate::record::{ShardId, TaskId};
use crate::settings::Limits;
use crate::submission::Accepted;

/// Whether there can ever be room for all of these at once.
pub(crate) fn check_size(limits: &Limits, demand: Demand) -> Result<()> {
    let too_many = |given, allowed| Err(Error::InvalidOption { option: "tasks", given, allowed });
    if demand.tasks > limits.bulk {
        return too_many(demand.tasks.to_string(), "at most limits.bulk tasks at once");
    }
    if demand.cached > limits.cached_arguments {
        let given = format!("{} with arguments that stay in memory", demand.cached);
        return too_many(given, "at most limits.cached_arguments of them at once");
    }
    Ok(())
}

/// Tasks that are stored together, and where they stand in their submission.
struct Group {
    places: Vec<usize>,
    tasks: OneByOne<Accepted>,
}

impl Dispatcher {
    /// Checks the tasks of a bulk, in order. What callers gave along is dropped elsewhere, and one by one,
    /// if one of them can't be taken.
    fn accept_all(
        &self,
        mut tasks: Vec<Submit>,
        permit: &mut Permit,
    ) -> Result<OneByOne<Accepted>> {
        let mut accepted = OneByOne(Vec::with_capacity(tasks.len()));
        tasks.reverse();
        let mut tasks = OneByOne(tasks);
        while let Some(task) = tasks.0.pop() {
            match self.accept(task, permit) {
                Ok(task) => accepted.0.push(task),
                Err(error) => {
                    self.shared.callback.discard((accepted, tasks));
                    return Err(error);
                }
            }
        }
        Ok(accepted)
    }

    /// The shard of a task's key, if it has one.
    fn shard_of(&self, task: &Accepted) -> Option<ShardId> {
        task.task.key.as_deref().map(|key| self.shared.shard_of_key(key))
    }

    /// The shard for tasks whose keys are in one.
    fn route_all(&self, tasks: &[Accepted]) -> Result<usize> {
        let mut ids = tasks.iter().filter_map(|of| of.task.id);
        let wanted = ids.next();
        let shard = wanted.map(TaskId::shard);
        if let Some(other) = ids.find(|id| Some(id.shard()) != shard) {
            return Err(Error::InvalidOption {
                option: "with_id",
                given: format!("{other} beside the id of another shard"),
                allowed: "ids of one shard in one submission",
            });
        }
        self.route(wanted, tasks.iter().find_map(|of| of.task.key.as_deref()))
    }

    /// The shard for all of these.
    fn shard_of_all(&self, tasks: &[Accepted]) -> Result<usize> {
        let mut shards = tasks.iter().filter_map(|task| self.shard_of(task));
        let shard = shards.next();
        if shards.any(|other| Some(other) != shard) {
            return Err(Error::InvalidOption {
                option: "key",
                given: "keys of several shards in one bulk".into(),
                allowed: "keys of one shard, because a bulk is stored in one transaction",
            });
        }
        self.route_all(tasks)
    }

    /// The tasks of a bulk by the shards of their keys. Those without a key are by themselves, but if
    /// all keys are in one shard, and no id is of another: then they go along, so that it is all of the
    /// bulk or nothing.
    fn by_shard(&self, mut tasks: OneByOne<Accepted>) -> Vec<Group> {
        let mut shards: Vec<_> = tasks.0.iter().map(|task| self.shard_of(task)).collect();
        let mut keyed = shards.iter().flatten();
        let first = keyed.next().copied();
        let mut ids = tasks.0.iter().filter_map(|of| of.task.id);
        if keyed.all(|other| Some(*other) == first) && ids.all(|id| Some(id.shard()) == first) {
            shards.fill(first);
        }
        let mut groups: BTreeMap<_, Group> = BTreeMap::new();
        for (place, (shard, task)) in shards.into_iter().zip(tasks.0.drain(..)).enumerate() {
            let nothing = || Group { places: Vec::new(), tasks: OneByOne(Vec::new()) };
            let group = groups.entry(shard).or_insert_with(nothing);
            group.places.push(place);
            group.tasks.0.push(task);
        }
        groups.into_values().collect()
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
            let demand = || message.tasks.iter().map(Submit::demand).sum();
            let mut permit = dispatcher.permit(message.permit.take(), demand)?;
            let mut accepted = dispatcher.accept_all(message.tasks, &mut permit)?;
            let index = match dispatcher.shard_of_all(&accepted.0) {
                Ok(index) => index,
                Err(error) => {
                    dispatcher.shared.callback.discard(accepted);
                    return Err(error);
                }
            };
            dispatcher.enqueue(index, accepted.0.drain(..), permit, Waiter::All(None));
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

impl Handler<SubmitKeyed> for Dispatcher {
    type Result = Result<Vec<Part>>;

    /// Splits the bulk, because slots of keys move nowhere else: no caller can know where they are.
    fn handle(&mut self, message: SubmitKeyed, context: &mut DispatcherContext) -> Self::Result {
        let parts = self.guarded(|dispatcher| {
            dispatcher.shared.points.pass(Point::DispatcherSubmitAll);
            let SubmitKeyed { tasks, permit } = message;
            let mut permit = dispatcher.permit(Some(permit), Demand::default)?;
            let groups = dispatcher.by_shard(dispatcher.accept_all(tasks, &mut permit)?);
            // each has its place before the first is on its way: until here it is all or nothing
            let routed = groups.iter().map(|group| dispatcher.route_all(&group.tasks.0));
            let shards = match routed.collect::<Result<Vec<_>>>() {
                Ok(shards) => shards,
                Err(error) => {
                    dispatcher.shared.callback.discard(groups);
                    return Err(error);
                }
            };
            let parts = shards.into_iter().zip(groups).map(|(index, group)| {
                let Group { places, mut tasks } = group;
                let weight = tasks.0.iter().map(|of| kib(&of.task)).sum();
                let permit = permit.split(places.len(), weight).expect("each task has a permit");
                let (answer, stored) = oneshot::channel();
                let waiter = Waiter::All(Some(answer));
                dispatcher.enqueue(index, tasks.0.drain(..), permit, waiter);
                Part { places, shard: dispatcher.shared.shards[index].id, stored }
            });
            Ok(parts.collect())
        })?;
        self.arm(context);
        Ok(parts)
    }
}
