//! What the Dispatcher asks of shards: about one task, to cancel or redrive it, a page of tasks, how many
//! there are.

use std::sync::Arc;

use actix::{Handler, ResponseFuture};

use super::{Dispatcher, DispatcherContext, ask, fail};
use crate::actors::messages::{
    Cancel, CancelRow, CountRows, CountTasks, GetRow, GetTask, ListRows, ListTasks, Redrive,
    RedriveRow, TaskPage,
};
use crate::error::{Error, Result};
use crate::record::{ShardId, TaskId, TaskRecord, TaskStatus};
use crate::store::{CancelOutcome, ListFilter, RedriveOutcome};

/// The page size of a list that asks for none, and the largest.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// What was asked of a shard; `not_found` if the task's isn't there.
fn answered_or<T: 'static>(
    asked: Result<ResponseFuture<Result<T>>>,
    not_found: T,
) -> ResponseFuture<Result<T>> {
    match asked {
        Err(Error::NotFound { .. }) => Box::pin(async { Ok(not_found) }),
        asked => asked.unwrap_or_else(fail),
    }
}

impl Handler<GetTask> for Dispatcher {
    type Result = ResponseFuture<Result<TaskRecord>>;

    fn handle(&mut self, GetTask(id): GetTask, _: &mut DispatcherContext) -> Self::Result {
        let asked = self.ask_about(id, |ledger, answer| ledger.link.send(GetRow { id, answer }));
        asked.unwrap_or_else(fail)
    }
}

impl Handler<Cancel> for Dispatcher {
    type Result = ResponseFuture<Result<CancelOutcome>>;

    fn handle(&mut self, Cancel(id): Cancel, _: &mut DispatcherContext) -> Self::Result {
        let asked = self.ask_about(id, |ledger, answer| ledger.link.send(CancelRow { id, answer }));
        answered_or(asked, CancelOutcome::NotFound)
    }
}

impl Handler<Redrive> for Dispatcher {
    type Result = ResponseFuture<Result<RedriveOutcome>>;

    fn handle(&mut self, Redrive(id): Redrive, _: &mut DispatcherContext) -> Self::Result {
        self.keys.redriven();
        let asked =
            self.ask_about(id, |ledger, answer| ledger.link.send(RedriveRow { id, answer }));
        answered_or(asked, RedriveOutcome::NotFound)
    }
}

impl Handler<ListTasks> for Dispatcher {
    type Result = ResponseFuture<Result<TaskPage>>;

    fn handle(&mut self, list: ListTasks, _: &mut DispatcherContext) -> Self::Result {
        if list.limit > PAGE_MAX {
            return fail(Error::InvalidOption {
                option: "limit",
                given: list.limit.to_string(),
                allowed: "from 1 to 1000",
            });
        }
        let limit = if list.limit == 0 { PAGE } else { list.limit };
        let name: Option<Arc<str>> = list.name.map(Arc::from);
        let first = list.after.map_or(ShardId(0), TaskId::shard);
        let mut after = list.after.map_or(0, TaskId::sequence);
        let ledgers = match self.present() {
            Ok(present) => present.into_iter().filter(move |ledger| ledger.id >= first),
            Err(error) => return fail(error),
        };
        let status = list.status;
        Box::pin(async move {
            let mut page = TaskPage::default();
            let mut ledgers = ledgers.peekable();
            while let Some(ledger) = ledgers.next() {
                let left = limit - page.tasks.len();
                let filter = ListFilter { status, name: name.clone(), after, limit: left };
                let rows = ask(&ledger, |ledger, answer| {
                    ledger.link.send(ListRows { filter, answer });
                });
                let rows = rows.await?;
                page.tasks.extend(rows.tasks);
                if let Some(sequence) = rows.next {
                    page.next = Some(TaskId::new(ledger.id, sequence));
                    return Ok(page);
                }
                after = 0;
                if let (true, Some(next)) = (page.tasks.len() >= limit, ledgers.peek()) {
                    page.next = Some(TaskId::new(next.id, 0));
                    return Ok(page);
                }
            }
            Ok(page)
        })
    }
}

impl Handler<CountTasks> for Dispatcher {
    type Result = ResponseFuture<Result<Vec<(TaskStatus, u64)>>>;

    fn handle(&mut self, _: CountTasks, _: &mut DispatcherContext) -> Self::Result {
        let shards = match self.present() {
            Ok(shards) => shards,
            Err(error) => return fail(error),
        };
        Box::pin(async move {
            let mut total: Vec<(TaskStatus, u64)> =
                TaskStatus::ALL.into_iter().map(|status| (status, 0)).collect();
            for ledger in &shards {
                let counts =
                    ask(ledger, |ledger, answer| ledger.link.send(CountRows { answer })).await?;
                for (status, count) in counts {
                    for (known, sum) in &mut total {
                        if *known == status {
                            *sum += count;
                        }
                    }
                }
            }
            Ok(total)
        })
    }
}
