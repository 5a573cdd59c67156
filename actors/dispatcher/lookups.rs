//! What the Dispatcher does with questions: one task, a page of tasks, how many there are.

use std::sync::Arc;

use actix::{Handler, ResponseFuture};

use super::{Dispatcher, DispatcherContext, ask, fail};
use crate::actors::messages::{
    CountRows, CountTasks, GetRow, GetTask, ListRows, ListTasks, TaskPage,
};
use crate::error::{Error, Result};
use crate::record::{ShardId, TaskId, TaskRecord, TaskStatus};
use crate::store::ListFilter;

/// The page size of a list that asks for none, and the largest.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

impl Handler<GetTask> for Dispatcher {
    type Result = ResponseFuture<Result<TaskRecord>>;

    fn handle(&mut self, GetTask(id): GetTask, _: &mut DispatcherContext) -> Self::Result {
        match self.ledger_of(id) {
            Ok(ledger) => ask(ledger, |ledger, answer| ledger.link.send(GetRow { id, answer })),
            Err(error) => fail(error),
        }
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
        let ledgers = self.shared.present().filter(|ledger| ledger.id >= first);
        let ledgers: Vec<_> = ledgers.cloned().collect();
        let status = list.status;
        Box::pin(async move {
            let mut page = TaskPage::default();
            let mut ledgers = ledgers.into_iter().peekable();
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
        let shards: Vec<_> = self.shared.present().cloned().collect();
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
