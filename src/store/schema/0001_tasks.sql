-- One shard's file. The CHECKs carry the state machine that src/lifecycle.rs draws;
-- the numbers are TaskStatus's, but for 0: a task that waits for its time. They compare and don't say
-- `in`: for a list of more than two SQLite builds a temporary index at each write.

create table meta (
    one       integer primary key check (one = 1),
    shard     integer not null check (shard between 0 and 32767),
    uuid      text    not null,
    -- goes up at each start of a process; with claim_no it fences what attempts write
    epoch     integer not null check (epoch >= 0),
    -- sequence numbers up to this one may have been given out; synced before any of them is
    reserved  integer not null check (reserved >= 0),
    -- 1 between a clean close and the next open
    clean     integer not null check (clean between 0 and 1)
) strict;

-- Definitions' names, so that a row carries a small number.
create table name (
    id    integer primary key,
    name  text not null unique check (length(name) between 1 and 63)
) strict;

-- How many tasks have each status (state, or delivery once it began), kept by every transaction.
create table tally (
    status  integer primary key,
    tasks   integer not null check (tasks >= 0)
) strict;

create table task (
    id              integer primary key,
    name            integer not null,
    -- 0 waits for due_at, 1 ready, 2 running, 3 finished, 4 failed, 7 cancelled, 8 expired
    state           integer not null check (state between 0 and 4 or state between 7 and 8),
    -- 1 while a process has it in hand: what a recovery must look at, and nothing else
    live            integer not null check (live = (state = 2 or delivery = 1 or delivery = 6)),
    -- 0 none, 1 pending, 6 callbacking, 5 callbacked, 9 dead
    delivery        integer not null
        check (delivery between 0 and 1 or delivery between 5 and 6 or delivery = 9),
    -- how many deliveries are still open: one for the targets in memory, one per durable callback
    delivery_left   integer not null check (delivery_left >= 0),
    -- how many targets will never have it, and why the first of them won't
    delivery_failed integer not null check (delivery_failed >= 0),
    delivery_error  integer,
    -- 1 if a target of this task lives, or lived, in memory only
    volatile        integer not null check (volatile between 0 and 1),
    -- 1 if the arguments live in memory only
    cached          integer not null check (cached between 0 and 1),
    codec           integer not null,
    priority        integer not null check (priority between -32768 and 32767),
    -- the place in the order: due time less priority times ageing, in microseconds
    rank            integer not null,
    claim_no        integer not null check (claim_no >= 0),
    epoch           integer not null check (epoch >= 0),
    failures        integer not null check (failures >= 0),
    crashes         integer not null check (crashes >= 0),
    checksum        integer not null,
    submitted_at    integer not null,
    started_at      integer,
    ended_at        integer,
    due_at          integer,
    -- the task whose end this callback reports
    parent          integer,
    -- overrides of the definition's options
    max_attempts    integer check (max_attempts > 0),
    timeout_ms      integer check (timeout_ms > 0),
    backoff_min_ms  integer check (backoff_min_ms >= 0),
    backoff_max_ms  integer check (backoff_max_ms >= backoff_min_ms),
    -- names of the durable callbacks to insert when the task ends, as a JSON array
    callbacks       text,
    error_kind      integer,
    error           text,
    payload         blob,
    output          blob,

    check ((state = 0) = (due_at is not null)),
    check ((state > 2) = (ended_at is not null)),
    check (delivery = 0 or state > 2),
    check ((delivery = 1 or delivery = 6) = (delivery_left > 0)),
    check ((delivery = 9) <= (delivery_failed > 0)),
    check ((delivery = 5) <= (delivery_failed = 0)),
    check ((delivery_failed > 0) = (delivery_error is not null)),
    check ((state = 4) <= (error_kind is not null)),
    check ((output is not null) <= (state = 3)),
    check ((payload is null) = (cached = 1 or parent is not null))
) strict;

-- The order of what may run; equal ranks stand in order of id. Nothing else is in it, so history
-- doesn't slow a claim.
create index task_ready on task (rank) where state = 1;

-- What waits for its time.
create index task_due on task (due_at) where state = 0;

-- What a recovery looks at. `live` keeps its value from the claim to the last delivery, so the
-- updates between don't touch this index.
create index task_live on task (live) where live = 1;
