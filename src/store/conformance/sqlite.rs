//! The suite over SQLite files.

use std::path::PathBuf;

use super::super::directory::Directory;
use super::super::open::{OpenKind, OpenOptions, OpenedShard, open_shard};
use super::super::sqlite::{SqliteStore, StoreOptions, open_store};
use super::super::testing::{self, Place};
use super::super::{BackupTarget, Memory, Recovered, restore};
use super::Factory;
use crate::clock::Timestamp;
use crate::record::ShardId;

const SHARD: ShardId = ShardId(0);

/// One shard in a directory of its own.
pub(super) struct Files {
    place: Place,
    directory: Option<Directory>,
    backup: Option<BackupTarget>,
    copy: Option<Directory>,
}

impl Files {
    pub(super) fn new() -> Self {
        Files { place: Place::with_shards(1), directory: None, backup: None, copy: None }
    }
}

/// A process that dies takes nothing with it that the system has: no need to sync.
fn open_options() -> OpenOptions {
    OpenOptions { synced_commits: false, ..testing::options() }
}

fn store(
    opened: OpenedShard,
    options: &StoreOptions,
    now: Timestamp,
    kind: OpenKind,
    memory: Option<&dyn Memory>,
) -> (SqliteStore, Recovered) {
    open_store(opened, SHARD, options.clone(), now, kind, memory).unwrap()
}

impl Factory for Files {
    type Store = SqliteStore;

    fn open(&mut self, options: &StoreOptions, now: Timestamp) -> (SqliteStore, Recovered) {
        // the lock of the process before goes first
        self.directory = None;
        let directory = self.place.open();
        let opened = open_shard(&directory, SHARD, &open_options(), OpenKind::First).unwrap();
        self.directory = Some(directory);
        store(opened, options, now, OpenKind::First, None)
    }

    fn crash(&mut self, store: SqliteStore) {
        drop(store);
        self.directory = None;
    }

    fn rebuild(
        &mut self,
        old: SqliteStore,
        options: &StoreOptions,
        now: Timestamp,
        memory: &dyn Memory,
    ) -> (SqliteStore, Recovered) {
        drop(old);
        let opened =
            open_shard(self.directory.as_ref().unwrap(), SHARD, &open_options(), OpenKind::Rebuild)
                .unwrap();
        store(opened, options, now, OpenKind::Rebuild, Some(memory))
    }

    fn backup_file(&mut self) -> PathBuf {
        let directory = self.directory.as_ref().unwrap();
        let target = BackupTarget::prepare(directory, &self.place.beside("backup")).unwrap();
        self.backup.insert(target).shard_path(SHARD)
    }

    fn open_backup(&mut self, options: &StoreOptions, now: Timestamp) -> SqliteStore {
        self.backup.take().unwrap().finish().unwrap();
        let restored = self.place.beside("restored");
        restore(&self.place.beside("backup"), &restored, &testing::directory_options()).unwrap();
        let copy = Directory::open(&restored, &testing::directory_options()).unwrap();
        let opened = open_shard(&copy, SHARD, &open_options(), OpenKind::First).unwrap();
        self.copy = Some(copy);
        store(opened, options, now, OpenKind::First, None).0
    }
}

/// Runs tests of the suite over files.
macro_rules! conforms {
    ($($part:ident: $($test:ident),* $(,)?;)*) => {
        $(
            mod $part {
                $(
                    #[tokio::test]
                    async fn $test() {
                        super::super::$part::$test(super::Files::new()).await;
                    }
                )*
            }
        )*
    };
}

conforms! {
    order:
        the_higher_priority_goes_first_and_equals_in_order_of_submission,
        an_old_task_is_overtaken_by_no_more_than_its_age_allows,
        a_fresh_task_is_claimed_as_it_is_stored_if_nothing_stands_before_it,
        a_fresh_task_does_not_overtake_stored_ones,
        no_task_starts_before_its_time,
        a_time_that_has_passed_means_now,
        a_batch_claims_what_it_makes_ready_itself,
        places_behind_slots_are_for_quick_definitions_only,
        blocking_ones_behind_slots_are_claimed_as_far_as_they_have_threads,
        blocking_ones_behind_slots_take_no_time_of_the_slots,
        what_blocks_in_a_slot_lets_others_wait_behind_slots,
        what_stands_after_another_shards_first_is_claimed_only_so_often,
        what_is_claimed_carries_what_was_submitted;
    ends:
        an_attempt_that_is_not_the_latest_claim_writes_nothing,
        an_attempt_of_an_earlier_process_writes_nothing,
        a_failed_attempt_is_tried_again_after_its_pause_and_counted,
        the_last_failure_ends_the_task,
        snoozing_and_releasing_count_as_no_failure,
        a_task_that_has_not_started_is_removed_by_cancelling,
        a_running_task_is_asked_to_end,
        an_ended_task_cannot_be_cancelled,
        a_cancelled_head_is_never_claimed,
        a_dead_task_is_redriven_with_fresh_counters_and_a_fresh_fence,
        only_what_ended_without_success_is_redriven,
        a_redriven_task_owes_nothing_to_targets_that_had_their_answer;
    deliveries:
        an_end_and_its_durable_callbacks_are_one_batch,
        a_parent_is_callbacked_when_its_last_callback_ends_well,
        a_parent_is_dead_when_a_callback_fails_for_good,
        a_redriven_callback_revives_its_parent,
        a_redriven_callback_does_not_hide_that_another_failed,
        a_callback_that_is_redriven_while_another_runs_is_waited_for,
        a_callback_of_an_earlier_run_closes_nothing_of_a_later_one,
        a_cancelled_callback_leaves_its_parent_dead,
        a_callback_reports_its_parent_as_it_ended,
        a_named_subscriber_gets_every_end_of_its_definition,
        a_result_waits_for_a_delivery_credit,
        waiting_results_go_out_oldest_first_and_are_not_overtaken,
        a_delivery_that_ended_twice_closes_nothing_else,
        a_delivery_of_an_earlier_claim_is_ignored,
        a_dead_delivery_leaves_the_outcome_alone,
        a_cancellation_is_notified_like_any_end;
    recovery:
        what_ran_is_ready_again_and_a_crash_the_more,
        what_did_not_get_to_its_end_stands_where_it_stood,
        a_clean_close_loses_nothing,
        the_last_crash_ends_the_task_and_notifies,
        suspects_are_claimed_alone_and_only_on_request,
        deliveries_to_memory_die_with_the_process,
        a_pending_delivery_dies_with_the_process_and_callbacks_go_on,
        durable_callbacks_survive_a_crash,
        a_rebuild_touches_no_attempt_that_lives,
        a_rebuild_sends_deliveries_again_that_nobody_has,
        ids_are_never_used_again;
    window:
        a_backlog_longer_than_the_window_is_claimed_in_the_exact_order,
        rows_that_become_ready_before_and_behind_the_watermark_keep_the_order,
        a_row_evicted_from_the_window_is_claimed_in_its_turn,
        cancelling_the_whole_window_uncovers_what_is_behind_it,
        names_that_are_not_registered_wait_and_block_nobody,
        many_rows_that_become_due_at_once_are_all_claimed;
    upkeep:
        an_id_that_was_stored_already_is_stored_once,
        an_id_that_was_never_given_out_is_refused,
        a_lookup_tells_gone_from_never,
        records_are_removed_when_their_time_is_over_and_dead_ones_later,
        a_pass_is_followed_by_another_before_what_ends_meanwhile_expires,
        nothing_that_is_under_way_is_ever_removed,
        a_list_is_paged_by_status_and_name_without_gaps,
        a_backup_holds_what_was_committed_and_gives_out_no_id_twice;
}

mod model {
    use super::super::model;

    proptest::proptest! {
        #![proptest_config(model::config())]

        #[test]
        fn a_store_does_what_the_model_does(steps in model::steps()) {
            model::check(super::Files::new(), &steps);
        }
    }
}
