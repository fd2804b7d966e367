"""Every known fault by its identifier, with the tests that cover it."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = {
    "R": "Interrupts and resuming",
    "C": "Checkpoints and weights files",
    "D": "Downloads and archives",
    "I": "Images and datasets",
    "N": "Numbers",
    "G": "Plugins",
    "Y": "Recipes and the command line",
    "W": "Threads, memory and limits",
    "T": "TensorBoard",
    "S": "Secrets and exports",
}
BAD = "bad inputs"  # in place of a test: the cases of this fault in the table of bad inputs


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, its tests as ``file::name``, and what they do not cover."""

    id: str
    what: str
    tests: tuple[str, ...] = ()
    gap: str = ""

    @property
    def files(self) -> list[str]:
        """The files of its tests, sorted."""
        return sorted({test.partition("::")[0] for test in self.tests if test != BAD})


def fault(text: str, *tests: str, gap: str = "") -> Fault:
    """Return a fault; ``text`` is its identifier and its name, and ``file::a b`` names two tests of one file."""
    name, _, what = text.partition(" ")
    return Fault(name, what, tuple(each for test in tests for each in several(test)), gap)


def several(tests: str) -> list[str]:
    """Return each test of one file as ``file::name``."""
    file, found, names = tests.partition("::")
    return [f"tests/{file}.py::test_{name}" for name in names.split()] if found else [tests]


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
    fault(
        "G1 A hook fails",
        "faults/test_plugins::g1_a_plugin_that_fails_at_an_event",
        "faults/test_plugins::g1_a_plugin_that_fails_when_it_hears_of_an_error",
        "test_broken_plugins::broken_where_it_is_used broken_while_a_run_trains",
        "test_broken_plugins::a_plugin_that_fails_when_it_hears_of_an_error_is_named_too",
        BAD,
    ),
    fault(
        "G2 A plugin fails at import",
        "test_installed_plugins::a_plugin_that_cannot_be_loaded_stops_nothing_else",
        "test_broken_plugins::broken_where_it_is_loaded other_commands_and_recipes_work",
        BAD,
    ),
    fault("G3 An entry point leads nowhere", "test_installed_plugins::an_entry_point_that_leads_nowhere_is_noted", BAD),
    fault(
        "G4 A plugin prints, ends the process, or changes the folder, the environment or random numbers",
        "faults/test_plugins::g4_a_plugin_that_changes_the_process",
        "faults/test_plugins::g4_a_plugin_that_prints_and_tries_to_end_the_process",
        "test_broken_plugins::what_misbehaves_does_no_harm",
        gap="`os._exit` and the signal handlers of a plugin cannot be contained within one process",
    ),
    fault(
        "G5 Two plugins offer the same name",
        "test_installed_plugins::two_installed_plugins_that_offer_one_name_are_both_named",
        BAD,
    ),
    fault("G6 Misspelt hook", "test_plugins::a_misspelt_hook_is_an_error_with_the_nearest_name", BAD),
    fault(
        "G7 A hook asks for an argument that it does not have",
        "test_plugins::a_hook_that_asks_for_more_is_an_error",
        BAD,
    ),
    fault(
        "G8 A plugin for a different version",
        "faults/test_plugins::g8_a_plugin_for_other_versions",
        "test_broken_plugins::this_api_version_or_none_is_taken an_object_may_say_its_api_version_or_its_module",
        BAD,
    ),
    fault("G9 Order of plugins", "test_installed_plugins::the_order_of_plugins_does_not_depend_on_their_installation"),
    fault("G10 A plugin is disabled", "test_installed_plugins::installed_plugins_can_be_left_out"),
    fault("G11 Slow hooks", "faults/test_plugins::g11_a_plugin_that_takes_long"),
    fault(
        "G12 Wrong type, shape or value",
        "data/test_loader::a_transform_that_returns_no_image_is_named",
        "data/test_data::a_dataset_that_returns_something_else items_that_are_no_images_are_never_skipped",
        "test_broken_plugins::broken_where_it_is_used broken_while_a_run_trains",
        BAD,
    ),
    fault("G13 A plugin changes the recipe", "faults/test_plugins::g13_the_recipe_of_a_run_cannot_be_changed"),
    fault(
        "G14 State that is not JSON; a plugin that is not installed any more",
        "faults/test_plugins::g14_state_of_a_plugin_is_json g14_a_plugin_that_is_gone_at_resume",
    ),
    fault(
        "Y1 Mistakes in a recipe",
        "recipe/test_plan_mistakes::each_mistake_has_its_sentence",
        "recipe/test_plan_mistakes::all_mistakes_at_once_in_the_order_of_the_file",
        BAD,
    ),
    fault("Y2 Overrides on the command line", "recipe/test_overrides::what_cannot_be_carried_out_is_a_mistake", BAD),
    fault("Y3 Relative paths", "recipe/test_plan::start_where_they_are_written"),
    fault("Y4 Where recipes are read from", "recipe/test_document::standard_input any_file_name read_only_folder", BAD),
    fault(
        "Y5 Help without MindSpore; checks without training",
        "training/test_preflight::a_missing_device_comes_first the_disk_comes_before_the_data",
        "cli/test_help::the_command_line_is_imported_without_heavy_libraries",
        "cli/test_help::help_takes_less_than_a_third_of_a_second",
        "cli/test_run::looking_first_writes_nothing",
        BAD,
    ),
    fault(
        "Y6 Terminals",
        "cli/test_help::any_width",
        "cli/test_help::any_terminal",
        "display/test_progress::text_cannot_steer_a_terminal",
    ),
    fault(
        "Y7 Run folders and output files",
        "files/test_outputs::an_existing_file_is_refused_unless_forced an_input_is_never_written",
        "cli/test_outputs::a_command_overwrites_nothing_but_its_own inputs_are_never_overwritten",
        "training/test_runfolder::runs_that_start_together_get_folders_of_their_own",
        "training/test_runfolder::a_second_run_in_the_same_folder_is_refused_by_name",
        "faults/test_disk::y7_a_disk_without_room_is_noticed_before",
        BAD,
    ),
    fault(
        "Y8 Home folder, environment, offline",
        "files/test_atomic::home_and_offline_follow_the_environment",
        "files/test_offline::what_is_here_needs_no_network_online_either",
        "plugins/test_albumentations::import_is_cheap_and_use_is_silent_and_offline",
    ),
    fault(
        "W1 A thread fails or hangs",
        "data/test_loader::a_transform_that_raises_is_named_with_the_image a_disk_that_hangs_is_named",
        gap="threads of one process read the images, so a crash in native code ends the run",
    ),
    fault("W2 Small `/dev/shm`", gap="shared memory is not used"),
    fault("W3 Few file descriptors", "faults/test_signals::w3_few_descriptors_are_enough"),
    fault("W4 Processes left behind", gap="only short probes are started as processes"),
    fault("W5 Fewer cores than the machine has", "machine/test_environment::everything_is_there_and_ready_for_json"),
    fault("W6 Hundreds of epochs", "faults/test_flat::descriptors_and_threads_stay_flat five_hundred_epochs"),
    fault(
        "T1 The folder is removed, full or read-only",
        "plugins/test_tensorboard::a_removed_folder_gives_one_warning",
        "plugins/test_tensorboard_faults::a_full_disk_neither_stops_nor_hangs_a_run",
    ),
    fault("T2 Two runs start in the same second", "plugins/test_tensorboard::two_writers_in_one_second_do_not_meet"),
    fault(
        "T3 Killed while logging",
        "plugins/test_tensorboard_faults::a_killed_process_loses_only_the_tail",
        "plugins/test_tensorboard::a_resumed_run_has_no_step_twice",
    ),
    fault(
        "T4 Values and names",
        "plugins/test_tensorboard::values_that_are_no_numbers_are_shown_as_such",
        "plugins/test_tensorboard::odd_class_names_are_drawn",
    ),
    fault("T5 The library is missing", "plugins/test_tensorboard::its_library_is_asked_for_when_missing"),
    fault(
        "S1 Secrets",
        "recipe/test_masking::an_address_with_secrets_stays_in_the_recipe_alone",
        "machine/test_environment::secrets_are_masked",
        "cli/test_failures::secrets_and_control_characters_are_not_shown",
    ),
    fault(
        "S2 Names that contain code",
        "recipe/test_names::what_is_printed_cannot_steer_a_terminal every_name_comes_back_from_csv_and_json",
        "cli/test_run::names_of_photos_cannot_steer_the_terminal",
        gap="no HTML report exists yet",
    ),
    fault(
        "S3 Exports",
        "cli/test_run::export",
        "finetuner/test_export::an_exported_graph_says_the_same",
        "finetuner/test_export::without_onnxruntime_openvino_compares",
        "finetuner/test_export::a_file_with_other_weights_is_refused",
        "finetuner/test_export::a_damaged_file_is_refused",
    ),
]
