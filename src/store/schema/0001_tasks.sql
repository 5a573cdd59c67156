-- One shard's file. The CHECKs carry the state machine that src/lifecycle.rs draws;
-- the numbers are TaskStatus's, but for 0: a task that waits for its time. They compare and don't
-- say `in`: for a list of more than two SQLite builds a temporary index at each write.

create table meta (
    one       integer primary key check (one = 1),
    shard     integer not null check (shard between 0 and 32767),
    uuid      text    not null,
    -- which ownership of the file this is: goes up at each start of a process
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

-- Every column costs each task three times, so what few tasks have is folded into JSON.
create table task (
    id              integer primary key,
    name            integer not null,
    -- 0 waits for its time, 1 ready, 2 running, 3 finished, 4 failed, 7 cancelled, 8 expired
    state           integer not null check (state between 0 and 4 or state between 7 and 8),
    -- 1 while a process has it in hand: what a recovery must look at, and nothing else
    live            integer not null check (live = (state = 2 or delivery = 1 or delivery = 6)),
    -- 0 none, 1 pending, 6 callbacking, 5 callbacked, 9 dead
    delivery        integer not null
        check (delivery between 0 and 1 or delivery between 5 and 6 or delivery = 9),
    -- how many deliveries are still open: one for the targets in memory, one per durable callback
    delivery_left   integer not null check (delivery_left >= 0),
    -- 1 if a target of this task lives, or lived, in memory only
    volatile        integer not null check (volatile between 0 and 1),
    codec           integer not null,
    priority        integer not null check (priority between -32768 and 32767),
    -- the place in the order: due time less priority times ageing, in microseconds
    rank            integer not null,
    -- which attempt has the row: goes up with each claim and fences what attempts write
    claim_no        integer not null check (claim_no >= 0),
    failures        integer not null check (failures >= 0),
    crashes         integer not null check (crashes >= 0),
    checksum        integer not null,
    submitted_at    integer not null,
    started_at      integer,
    -- when it may run, of a task that waits for its time; when it ended, of one that has
    due_or_ended_at integer,
    -- the task whose end this callback reports
    parent          integer,
    -- what the submission overrides, which callbacks it names, which claim of its parent this
    -- callback reports: an object, or null if there is nothing of it
    details         text check (details is null or json_valid(details)),
    -- why the last attempt failed: an object
    error           text,
    -- why each target that will never have the result won't: an array
    undelivered     text,
    -- null if the arguments live in memory only, and for callbacks
    payload         blob check (payload is null or parent is null),
    output          blob check (output is null or state = 3),

    check ((due_or_ended_at is null) = (state between 1 and 2)),
    check (delivery = 0 or state > 2),
    check ((delivery = 1 or delivery = 6) = (delivery_left > 0)),
    check ((delivery = 9) <= (undelivered is not null)),
    check ((delivery = 0 or delivery = 5) <= (undelivered is null)),
    check ((state = 4) <= (error is not null))
) strict;

-- The order of what may run; equal ranks stand in order of id. Nothing else is in it, so history
-- doesn't slow a claim.
create index task_ready on task (rank) where state = 1;

-- What waits for its time.
create index task_due on task (due_or_ended_at) where state = 0;

-- What a recovery looks at. `live` keeps its value from the claim to the last delivery, so the
-- updates between don't touch this index.
create index task_live on task (live) where live = 1;

-- Results that wait for their turn to be sent to memory, oldest first. Most never wait.
create index task_pending on task (delivery) where delivery = 1;
