"""Every known fault by its identifier, with the tests that cover it."""

from __future__ import annotations

from tests.faults import known_interfaces
from tests.faults.fault import BAD, GROUPS, Fault, fault

__all__ = ["BAD", "FAULTS", "GROUPS", "Fault"]

FAULTS = [
    fault(
        "R1 A run is killed at any moment and resumed", "faults/test_crash::killed_a_few_times killed_a_hundred_times"
    ),
    fault(
        "R2 A run is resumed with a different number of threads",
        "training/test_engine::the_number_of_workers_changes_no_bit",
        "features/test_feed::the_number_of_workers_changes_no_bit",
    ),
    fault(
        "R3 A run is resumed with a different recipe",
        "faults/test_resuming::another_recipe_is_refused_unless_allowed another_network_is_refused_even_then",
        "training/test_engine::resuming_refuses_another_recipe",
    ),
    fault(
        "R4 A run is killed while it saves",
        "faults/test_resuming::the_second_newest_serves_where_the_newest_is_broken",
        "files/test_atomic::kill_during_writes_never_leaves_a_torn_file",
    ),
    fault(
        "R5 SIGTERM at every stage, once and twice",
        "machine/test_interrupts::a_signal_ends_with_a_checkpoint_and_its_code",
        "machine/test_interrupts::a_second_interrupt_ends_even_a_whole_block",
        "test_background::an_interrupt_stops_a_job_in_the_background_after_saving",
        "test_background::nohup_keeps_a_run_from_a_closed_terminal",
        "faults/test_signals::r5_sigterm_in_an_evaluation r5_sigterm_while_a_checkpoint_is_written",
        "files/test_interrupted::r5_a_signal_while_weights_are_fetched",
        "features/test_feed::stopping_while_features_are_computed",
    ),
    fault(
        "R6 Ctrl-C, also to a process group and in Python",
        "faults/test_signals::r6_random_moments r6_two_hundred_random_moments",
        "finetuner/test_interrupts::an_interrupted_fit_is_saved_and_can_go_on",
        "finetuner/test_interrupts::a_second_interrupt_stops_at_once_and_the_process_lives",
    ),
    fault(
        "R7 SIGTERM at the start of an epoch",
        "faults/test_signals::r7_sigterm_as_an_epoch_begins",
        "faults/test_signals::r6_random_moments",
    ),
    fault(
        "R8 The terminal is closed, or the reader of a pipe exits",
        "faults/test_signals::r8_a_closed_terminal_saves r8_a_reader_that_leaves_does_not_end_training",
        "cli/test_failures::closed_streams",
    ),
    fault(
        "R9 A process is stopped and continued; the clock jumps",
        "faults/test_signals::r9_stopped_and_continued r9_durations_do_not_follow_the_clock",
        "display/test_progress::time_left_is_never_negative",
    ),
    fault("R10 A run is resumed on different cores", "faults/test_resuming::other_cores_are_said_and_allowed"),
    fault(
        "R11 A recipe is edited before the run is resumed",
        "faults/test_resuming::another_recipe_is_refused_unless_allowed",
    ),
    fault(
        "R12 A finished run is resumed",
        "training/test_engine::resuming_a_finished_run_does_nothing",
        "cli/test_run::a_finished_run_has_nothing_to_do",
        "faults/test_finished::a_finished_run_says_what_differs_and_both_ways_out",
        "faults/test_finished::images_are_compared_by_their_contents extending_is_the_longer_run_from_there_on",
        "faults/test_finished::a_kill_while_extending_is_resumed",
        BAD,
    ),
    fault("R13 Nothing to resume", "cli/test_source::auto_means_the_newest_run_that_can_go_on", BAD),
    fault(
        "R14 State that a resumed run must restore",
        "faults/test_resuming::steps_are_saved_and_each_goes_on_to_the_same_bits",
        "plugins/test_early_stopping::a_resumed_run_goes_on_counting",
        "plugins/test_tensorboard::a_resumed_run_has_no_step_twice",
    ),
    fault(
        "R15 A project is moved, or the working folder is removed",
        "faults/test_moved::a_moved_project_resumes_to_the_same_bits a_moved_run_finds_its_images_without_a_recipe",
        BAD,
    ),
    fault(
        "C1 A file is cut at any position",
        "weights/test_hostile_ckpt::a_file_cut_anywhere_is_refused",
        "weights/test_ckpt_files::a_checkpoint_cut_anywhere_gives_fewer_tensors_or_an_error",
        BAD,
    ),
    fault("C2 Flipped bits", "weights/test_hostile_ckpt::a_flipped_bit_never_passes_the_known_hash"),
    fault("C3 Files that do not contain weights", "weights/test_not_weights::it_is_refused_with_the_reason", BAD),
    fault(
        "C4 Crafted `.ckpt` files",
        "weights/test_hostile_ckpt::crafted_checkpoints_are_refused",
        "weights/test_hostile_ckpt::the_worst_files_cost_little_time_and_memory",
        "faults/test_fuzz::no_reader_raises_anything_else",
        BAD,
    ),
    fault(
        "C5 Crafted safetensors files",
        "weights/test_hostile_safetensors::crafted_headers_are_refused texts_that_are_no_json_are_refused",
        BAD,
    ),
    fault(
        "C6 Pickles",
        "weights/test_tensorfile::pickles_are_never_run",
        "weights/test_torchfile::a_pickle_that_runs_code_is_not_run",
        BAD,
    ),
    fault(
        "C7 Wrong sha256",
        "weights/test_not_weights::a_wrong_sha256_is_refused_with_both",
        "files/test_download::both_hashes_are_shown",
        BAD,
    ),
    fault(
        "C8 Weights of a different network",
        "weights/test_not_weights::weights_of_another_network_are_refused_with_all_that_differs",
        BAD,
    ),
    fault(
        "C9 Full disk",
        "faults/test_full_disk::c9_full_at_every_kind_of_write",
        "faults/test_disk::c9_a_checkpoint_in_the_middle",
        "faults/test_disk::c9_the_last_checkpoint",
        "faults/test_disk::c9_the_history",
        "faults/test_disk::c9_the_model_folder",
    ),
    fault(
        "C10 A folder is removed or read-only",
        "faults/test_disk::c10_a_folder_that_is_removed_while_it_is_used",
        "faults/test_full_disk::c9_full_at_every_kind_of_write",
    ),
    fault("C11 File modes", "files/test_atomic::modes_follow_the_umask_even_after_a_writer_that_sets_its_own"),
    fault(
        "C12 Checkpoints of earlier versions",
        "training/test_start::a_checkpoint_of_an_older_version_says_no_start",
        gap="no version has been released yet",
    ),
    fault(
        "D1 A download is cut at any position",
        "files/test_download::cuts_anywhere a_cut_download_goes_on_where_it_was_cut",
    ),
    fault(
        "D2 Servers that misbehave",
        "files/test_download::what_goes_wrong_is_said_and_nothing_stays headers_that_do_not_end no_tls",
    ),
    fault(
        "D3 Killed while downloading",
        "files/test_interrupted::killed_in_the_middle",
        "files/test_interrupted::killed_again_and_again",
    ),
    fault("D4 Several processes download the same file", "files/test_interrupted::several_processes several_threads"),
    fault("D5 A file system without locks", "files/test_interrupted::several_processes several_threads"),
    fault("D6 A downloaded file is damaged later", "files/test_cache_faults::a_damaged_file_is_fetched_again"),
    fault("D7 The cache is read-only or full", "files/test_cache_faults::a_read_only_folder a_full_disk long_names"),
    fault("D8 Offline", "files/test_offline::a_cold_cache a_warm_cache", BAD),
    fault(
        "D9 Proxies, mirrors, `file://` addresses",
        "files/test_offline::a_proxy_that_does_not_answer a_file_address_works",
        "files/test_mirror::a_mirror_comes_first",
    ),
    fault(
        "D10 Hostile archives",
        "files/test_archive::names_that_lead_out",
        "files/test_archive::links_and_devices_in_a_tar",
        "files/test_archive::bombs_are_refused_early",
    ),
    fault("D11 Unsupported addresses", "files/test_download::other_addresses_are_refused a_hash_is_needed", BAD),
    fault(
        "I1 Files that are not images",
        "data/test_scan::bad_files_are_found_with_their_reasons",
        "data/test_imagefile::reasons_in_plain_words truncated_files_are_refused_wherever_they_end",
        BAD,
    ),
    fault(
        "I2 16-bit, alpha, EXIF, grey, bands, colour profiles, sizes",
        "data/test_images::16_bit_grey_keeps_its_contrast",
        "data/test_images::exif_orientation_is_applied_exactly_once",
        "data/test_images::alpha_shows_the_background",
        "data/test_bands::what_is_odd_about_a_tiff_is_reported",
        "data/test_profiles::rgb_is_what_its_primaries_say what_cannot_be_used_changes_nothing",
        "training/test_trial::a_crop_larger_than_some_images",
        BAD,
    ),
    fault("I3 Decompression bombs", "data/test_imagefile::bombs_are_refused_by_their_header", BAD),
    fault(
        "I4 An image disappears during training",
        "training/test_engine::a_photo_lost_while_training_names_it_and_saves",
        "data/test_loader::a_file_that_changed_since_the_scan_is_named",
    ),
    fault(
        "I5 Classes without images, one class, few images",
        "data/test_data::classes_without_images_and_single_classes_are_errors",
        "data/test_data::a_class_with_one_image_stays_in_training",
        "data/test_splits::ten_thousand_classes",
        "data/test_loader::fewer_images_than_a_batch",
        BAD,
    ),
    fault(
        "I6 Class lists that differ",
        "data/test_data::a_class_that_training_does_not_know",
        "data/test_data::names_that_look_alike_are_mentioned",
        "data/test_twins::twins_are_told_with_what_sets_them_apart",
        "data/test_folderlayout::layouts_that_are_not_clear",
        BAD,
    ),
    fault(
        "I7 Tables (CSV)",
        "plugins/test_csv::rows_that_cannot_be_used_are_all_named",
        "plugins/test_csv::tables_that_cannot_be_read",
        "plugins/test_csv_excel::tables_of_excel a_path_that_is_nearly_right_names_the_file",
        BAD,
    ),
    fault("I8 The same image twice", "data/test_data::the_same_photo_in_two_splits_is_a_leak"),
    fault(
        "I9 Links, unusual names, unreadable folders",
        "plugins/test_folder::links names_that_are_no_text a_folder_that_may_not_be_read",
        "data/test_walk::what_is_skipped_has_a_reason",
        "cli/test_predict::what_is_skipped_is_named_after_the_rest_is_labelled",
        BAD,
        gap="tested with 10,000 files, not with a million",
    ),
    fault(
        "I10 Read-only data",
        "data/test_scan::a_cache_that_cannot_be_written_does_no_harm",
        gap="data is only read, never written",
    ),
    fault("I11 Order of files in the file system", "plugins/test_folder::order_does_not_depend_on_the_file_system"),
    fault(
        "N1 Non-finite loss",
        "faults/test_resuming::a_loss_that_is_no_number_ends_the_run",
        "faults/test_resuming::a_rollback_goes_on_from_the_newest_checkpoint_at_half_the_rate",
        "training/test_engine::a_loss_that_is_not_finite_stops_before_best_is_touched",
    ),
    fault("N2 Non-finite weights", "faults/test_numerics::n2_weights_that_are_no_numbers_while_the_loss_is_one"),
    fault("N3 Non-finite gradients", "faults/test_numerics::n3_a_gradient_that_is_not_finite"),
    fault("N4 Labels out of range", "data/test_targets::labels_out_of_range_never_reach_a_kernel"),
    fault(
        "N5 Non-finite metrics; ties",
        "faults/test_numerics::n5_a_validation_loss_that_is_no_number_is_never_the_best",
        "model/test_metrics::better_knows_the_direction_and_never_takes_nan",
    ),
    fault("N6 Values out of range", BAD),
    fault(
        "N7 Seeds",
        "training/test_engine::the_resolved_recipe_repeats_the_run another_seed_gives_other_weights",
    ),
    fault(
        "N8 A last batch that is not full",
        "training/test_trainer::padding_does_not_count",
        "data/test_targets::the_loss_is_the_cross_entropy_of_the_real_rows",
    ),
    *known_interfaces.FAULTS,
]
