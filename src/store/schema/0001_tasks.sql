-- One shard's file. The CHECKs carry the state machine that src/lifecycle.rs draws;
-- the numbers are TaskStatus's, but for 0: a task that waits for its time, and 10: one that waits
-- for another of its key. They compare and don't say `in`: for a list of more than two SQLite builds
-- a temporary index at each write.

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

-- What many tasks have in common, so that a row carries one small number for it: the definition's
-- name, the named queue, the codec of arguments and result.
create table kind (
    id     integer primary key,
    name   text    not null check (length(name) between 1 and 63),
    queue  text    not null check (length(queue) between 1 and 63),
    codec  integer not null,
    unique (name, queue, codec)
) strict;

-- What each transaction left, folded into one row now and then. Which rows a process has in hand,
-- running or being delivered to memory, is what a recovery must look at: each transaction adds the
-- sequence numbers that it laid down and those that it took up. An index would cost every task two
-- writes. How many tasks have each status (state, or delivery once it began) the last row says.
create table step (
    number  integer primary key,
    laid    blob not null,
    taken   blob not null,
    counts  blob not null
) strict;

-- The tasks with an ordering key that haven't ended, in order of submission. The first of each key
-- may run, the others are held.
create table lane (
    slot  integer not null,
    key   text    not null,
    task  integer not null,
    primary key (slot, key, task)
) strict, without rowid;

-- Every column costs each task three times, and so does each CHECK that an update touches. What few
-- tasks have is folded into JSON, and what only an insert could get wrong is not checked.
create table task (
    id              integer primary key,
    kind            integer not null,
    -- 0 waits for its time, 1 ready, 2 running, 3 finished, 4 failed, 7 cancelled, 8 expired, 10 held
    state           integer not null
        check (state between 0 and 4 or state between 7 and 8 or state = 10),
    -- 0 none, 1 pending, 6 callbacking, 5 callbacked, 9 dead. 5 of a row that is in hand: it is being
    -- sent to targets in memory and to nobody else
    delivery        integer not null
        check (delivery between 0 and 1 or delivery between 5 and 6 or delivery = 9),
    -- for whom its end is, or was: 1 for targets in memory, and 2 for each durable callback whose
    -- delivery is open
    targets         integer not null,
    priority        integer not null,
    -- the place in the order: due time less priority times ageing, in microseconds
    rank            integer not null,
    -- which attempt has the row: goes up with each claim and fences what attempts write
    claim_no        integer not null,
    failures        integer not null,
    crashes         integer not null,
    checksum        integer not null,
    submitted_at    integer not null,
    -- of one that was claimed
    started_at      integer,
    -- when it may run, of a task that waits for its time, or will when it isn't held any more; when it
    -- ended, of one that has
    due_or_ended_at integer,
    -- what the submission overrides, its key, which callbacks it names; of a callback, which claim of
    -- which task it reports: an object, or null if there is nothing of it
    details         text check (details is null or json_valid(details)),
    -- why the last attempt failed: an object
    error           text,
    -- why each target that will never have the result won't: an array
    undelivered     text,
    -- null if the arguments live in memory only, and for callbacks
    payload         blob,
    output          blob check (output is null or state = 3),

    check (delivery = 0 or state between 3 and 8),
    check ((delivery = 1 or delivery = 6) <= (targets > 0))
) strict;

-- An index of tasks would cost each of them its writes, and be looked at when any column of its
-- condition changes. So what has to be found is kept in tables of its own, by the same transactions.

-- The order of what may run, of each kind: stretches of ids that became ready together, with one
-- rank. Of the tasks in a stretch, those of its kind and rank that are ready now are meant. Equal
-- ranks stand in order of id. History isn't in it, nor what is held.
create table ready (
    kind    integer not null,
    rank    integer not null,
    first   integer not null,
    last    integer not null check (last between first and first + 255),
    primary key (kind, rank, first)
) strict, without rowid;

-- What waits for its time.
create table due (
    at      integer not null,
    task    integer not null,
    primary key (at, task)
) strict, without rowid;

-- Results that wait for their turn to be sent to memory, oldest first. Most never wait.
create table pending (
    task    integer primary key
) strict;
