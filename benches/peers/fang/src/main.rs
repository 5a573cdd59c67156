//! fang: its asynchronous queue over sqlx, with one worker.
//!
//! More workers run tasks twice, for a task is claimed by a SELECT and an UPDATE without a
//! transaction. Its queue opens its own connections, with what sqlx sets; what is set in the file,
//! WAL, holds for them, and `synchronous` can't be set, so it is FULL. Finished tasks are deleted by
//! default; in `history` they are kept.

use std::ops::Range;
use std::time::Duration;

use fang::asynk::async_queue::{AsyncQueue, AsyncQueueable};
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{AsyncRunnable, FangError, RetentionMode, SleepParams, async_trait, typetag};
use peers::{AnyError, Order, Peer, Report, Runs, Scenario, answer, payload, spread, work};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

/// The table of fang's own migration for SQLite, which it leaves to the program to run.
const SCHEMA: &str = include_str!("schema.sql");

/// How many connections its queue may open.
const CONNECTIONS: u32 = 8;

/// How long a worker that found nothing sleeps. By default it is 5 to 15 seconds.
const SLEEP: Duration = Duration::from_millis(10);

#[derive(serde::Serialize, serde::Deserialize)]
struct Noop {
    payload: String,
}

#[typetag::serde]
#[async_trait]
impl AsyncRunnable for Noop {
    async fn run(&self, _: &dyn AsyncQueueable) -> Result<(), FangError> {
        Runs::here().ran(&self.payload);
        Ok(())
    }
}

fn noop(task: usize) -> Noop {
    Noop { payload: payload(task) }
}

struct Fang {
    queue: AsyncQueue,
    /// For what fang can't be asked.
    pool: SqlitePool,
    order: Order,
}

impl Fang {
    async fn open(order: &Order) -> Result<Fang, AnyError> {
        let file = order.dir.join("fang.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        if order.scenario == Scenario::History {
            fill(order, &pool).await?;
        }
        let uri = format!("sqlite://{}", file.display());
        let mut queue = AsyncQueue::builder().uri(uri).max_pool_size(CONNECTIONS).build();
        queue.connect().await?;
        Ok(Fang { queue, pool, order: order.clone() })
    }
}

/// Adds finished tasks as fang leaves them if it keeps them.
async fn fill(order: &Order, pool: &SqlitePool) -> Result<(), AnyError> {
    let task: &dyn AsyncRunnable = &noop(0);
    sqlx::query(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1)
         insert into fang_tasks (id, metadata, state, scheduled_at)
         select randomblob(16), ?2, 'finished', unixepoch() from n",
    )
    .bind(i64::try_from(order.rows)?)
    .bind(serde_json::to_string(task)?)
    .execute(pool)
    .await?;
    Ok(())
}

impl Peer for Fang {
    const BULK: bool = false;

    async fn start(&self) -> Result<(), AnyError> {
        let sleep = SleepParams {
            sleep_period: SLEEP,
            max_sleep_period: SLEEP,
            min_sleep_period: SLEEP,
            sleep_step: Duration::ZERO,
        };
        let keeps = self.order.scenario == Scenario::History;
        let mut workers: AsyncWorkerPool<AsyncQueue> = AsyncWorkerPool::builder()
            .number_of_workers(u32::try_from(self.order.concurrency.unwrap_or(1))?)
            .queue(self.queue.clone())
            .sleep_params(sleep)
            .retention_mode(if keeps {
                RetentionMode::KeepAll
            } else {
                RetentionMode::RemoveFinished
            })
            .build();
        workers.start().await;
        Ok(())
    }

    async fn submit(&self, task: usize) -> Result<(), AnyError> {
        self.queue.insert_task(&noop(task)).await.map_err(text)?;
        Ok(())
    }

    async fn submit_each(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let queue = self.queue.clone();
        spread(self.order.submitters.unwrap_or(SUBMITTERS), tasks, move |task| {
            let queue = queue.clone();
            async move {
                queue.insert_task(&noop(task)).await.map_err(text)?;
                Ok(())
            }
        })
        .await;
        Ok(())
    }

    async fn submit_bulk(&self, _: Range<usize>) -> Result<(), AnyError> {
        Err("fang has no interface for many tasks at once".into())
    }

    async fn unrecorded(&self) -> Result<usize, AnyError> {
        let left: i64 =
            sqlx::query_scalar("select count(*) from fang_tasks where state <> 'finished'")
                .fetch_one(&self.pool)
                .await?;
        Ok(usize::try_from(left)?)
    }

    async fn describe(&self, report: &mut Report) -> Result<(), AnyError> {
        let pool = &self.pool;
        report.sqlite = Some(sqlx::query_scalar("select sqlite_version()").fetch_one(pool).await?);
        report.journal = Some(sqlx::query_scalar("pragma journal_mode").fetch_one(pool).await?);
        // of a connection opened as fang opens its own
        let synchronous: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(pool).await?;
        report.synchronous = Some(synchronous.to_string());
        Ok(())
    }
}

fn text(error: impl std::fmt::Debug) -> AnyError {
    format!("{error:?}").into()
}

/// What it is fastest with here.
const SUBMITTERS: usize = 4;

fn main() -> Result<(), AnyError> {
    let order = Order::given()?;
    Runs::set_up(order.tasks);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let peer = Fang::open(&order).await?;
        answer(work(&order, &peer).await)
    })
}
