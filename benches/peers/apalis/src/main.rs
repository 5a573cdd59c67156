//! apalis-sqlite: a pool of connections under sqlx.
//!
//! Variants: `polling` is the basic worker of its README; `hook` is the event-driven one, woken by
//! SQLite's update hook. `setup` sets `synchronous = OFF` on one connection of the pool; here every
//! connection is set to the durability that was ordered, after `setup`.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use apalis::prelude::*;
use apalis_sqlite::callback::HookCallbackListener;
use apalis_sqlite::{Config, SqlitePool, SqliteStorage};
use futures::StreamExt;
use peers::{
    AnyError, Durability, Order, Peer, Report, Runs, Scenario, answer, payload, spread, work,
};
use sqlx::sqlite::SqliteConnectOptions;

const WORKER: &str = "worker-1";
const QUEUE: &str = "noop";

/// How many tasks a bulk is of.
const BULK: usize = 256;

/// How many finished tasks lie in the file but in `history`, so that it has statistics.
const ROWS: usize = 1_000;

/// How many connections a pool has: what sqlx takes by itself.
const CONNECTIONS: u32 = 10;

/// The interval of its example without a hook.
const POLL: Duration = Duration::from_millis(100);

/// The README's interval beside the hook.
const INTERVAL: Duration = Duration::from_millis(500);

struct Apalis {
    pool: SqlitePool,
    listener: Mutex<Option<HookCallbackListener>>,
    order: Order,
}

async fn noop(payload: String) -> Result<(), BoxDynError> {
    Runs::here().ran(&payload);
    Ok(())
}

/// Without its worker a round ends at its limit, and this says why.
fn ended(result: Result<(), impl std::fmt::Debug>) {
    eprintln!("the worker ended: {result:?}");
}

impl Apalis {
    async fn open(order: &Order) -> Result<Apalis, AnyError> {
        let file = order.dir.join("apalis.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let (pool, listener) = SqliteStorage::connect_with_callback(&url)?;
        // no connection is open so far
        let options: SqliteConnectOptions = url.parse()?;
        pool.set_connect_options(options.pragma("synchronous", order.durability.name()));
        SqliteStorage::setup(&pool).await?;
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = pool.acquire().await?;
            let synchronous = match order.durability {
                Durability::Normal => "pragma synchronous = normal",
                Durability::Full => "pragma synchronous = full",
            };
            sqlx::query(synchronous).execute(&mut *connection).await?;
            open.push(connection);
        }
        drop(open);
        Ok(Apalis { pool, listener: Mutex::new(Some(listener)), order: order.clone() })
    }

    fn storage(&self) -> SqliteStorage<String> {
        let config = Config::default().queue(QUEUE).batch_size(self.batch()).lock_tasks(false);
        SqliteStorage::new(&self.pool).with_config(config)
    }

    fn batch(&self) -> usize {
        self.order.concurrency.unwrap_or(CONCURRENCY)
    }
}

/// Adds finished tasks as apalis leaves them, of the worker that runs the round's, and gathers
/// statistics: without them SQLite looks through every task that the worker ever locked for each
/// that is recorded, and apalis is ten times slower.
async fn fill(order: &Order, rows: usize) -> Result<(), AnyError> {
    let opened = Apalis::open(order).await?;
    sqlx::query(
        "insert into Workers (id, worker_type, storage_name, layers, last_seen)
         values (?1, ?2, ?3, '', unixepoch() - 3600)",
    )
    .bind(WORKER)
    .bind(QUEUE)
    .bind("SqliteStorage")
    .execute(&opened.pool)
    .await?;
    sqlx::query(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1)
         insert into Jobs (job, id, job_type, status, attempts, max_attempts, run_at, last_result,
                lock_at, lock_by, done_at, priority, metadata)
         select ?2, printf('00%024d', i), ?3, 'Done', 1, 25, unixepoch() - 60, '{\"Ok\":null}',
                unixepoch() - 60, ?4, unixepoch() - 60, 0, '{}'
           from n",
    )
    .bind(i64::try_from(rows)?)
    .bind(format!("\"{}\"", payload(0)).into_bytes())
    .bind(QUEUE)
    .bind(WORKER)
    .execute(&opened.pool)
    .await?;
    sqlx::query("analyze").execute(&opened.pool).await?;
    opened.pool.close().await;
    Ok(())
}

impl Peer for Apalis {
    const BULK: bool = true;

    async fn start(&self) -> Result<(), AnyError> {
        let backend = self.storage();
        let concurrency = self.batch();
        if self.order.variant == "hook" {
            let listener = self.listener.lock().ok().and_then(|mut one| one.take());
            let listener = listener.ok_or("the worker was started already")?;
            let strategy =
                Strategy::new().stream(listener.ready_chunks(self.batch())).interval(INTERVAL);
            let backend = backend.poll_with_strategy(strategy);
            let worker = WorkerBuilder::new(WORKER).backend(backend).concurrency(concurrency);
            let worker = worker.build(noop);
            tokio::spawn(async move { ended(worker.run().await) });
        } else {
            let backend = backend.poll_with_interval(POLL);
            let worker = WorkerBuilder::new(WORKER).backend(backend).concurrency(concurrency);
            let worker = worker.build(noop);
            tokio::spawn(async move { ended(worker.run().await) });
        }
        Ok(())
    }

    async fn submit(&self, task: usize) -> Result<(), AnyError> {
        self.storage().push(payload(task)).await?;
        Ok(())
    }

    async fn submit_each(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let storage = self.storage();
        spread(self.order.submitters.unwrap_or(SUBMITTERS), tasks, move |task| {
            let mut storage = storage.clone();
            async move {
                storage.push(payload(task)).await?;
                Ok(())
            }
        })
        .await;
        Ok(())
    }

    async fn submit_bulk(&self, tasks: Range<usize>) -> Result<(), AnyError> {
        let mut storage = self.storage();
        for first in tasks.clone().step_by(BULK) {
            storage
                .push_bulk((first..(first + BULK).min(tasks.end)).map(payload).collect())
                .await?;
        }
        Ok(())
    }

    async fn unrecorded(&self) -> Result<usize, AnyError> {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from Jobs where status in ('Pending', 'Queued', 'Running', 'Failed')",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(left)?)
    }

    async fn describe(&self, report: &mut Report) -> Result<(), AnyError> {
        let pool = &self.pool;
        report.sqlite = Some(sqlx::query_scalar("select sqlite_version()").fetch_one(pool).await?);
        report.journal = Some(sqlx::query_scalar("pragma journal_mode").fetch_one(pool).await?);
        let synchronous: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(pool).await?;
        report.synchronous = Some(synchronous.to_string());
        Ok(())
    }
}

/// What it is fastest with here.
const CONCURRENCY: usize = 64;
const SUBMITTERS: usize = 64;

fn main() -> Result<(), AnyError> {
    let order = Order::given()?;
    Runs::set_up(order.tasks);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let history = order.scenario == Scenario::History;
        fill(&order, if history { order.rows } else { ROWS }).await?;
        let peer = Apalis::open(&order).await?;
        answer(work(&order, &peer).await)
    })
}
