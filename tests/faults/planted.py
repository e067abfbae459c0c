"""Faults that a test must find: each is one changed line, and the tests that fail with it."""

from __future__ import annotations

from dataclasses import dataclass

VERDICTS, STUDIES = "tests/sweep/test_simulated_verdicts.py", "tests/sweep/test_simulated_studies.py"
SELECTION = "tests/sweep/test_selection.py"
REMOVAL = "tests/pruning/test_removal.py"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A line of a file that is changed, what it becomes, and where a test must fail."""

    what: str
    file: str  # inside the package
    line: str  # a part of one line, found once in the file
    becomes: str
    tests: str


FAULTS = (
    Fault(
        what="a timed run is corrected in the wrong direction",
        file="sweep/equal_cost.py",
        line="round(rival.steps / ratio)",
        becomes="round(rival.steps * ratio)",
        tests=f"{VERDICTS}::test_equal_seconds_are_equal_where_the_trial_was_wrong",
    ),
    Fault(
        what="a cell is finished with one of its three seeds",
        file="sweep/grid.py",
        line="if len(ended[cell]) == layout.repeats(cell.budget_flops):",
        becomes="if ended[cell]:",
        tests=f"{STUDIES}::test_a_cell_ends_when_all_its_seeds_have",
    ),
    Fault(
        what="no rung beyond the grid at equal seconds",
        file="sweep/equal_cost.py",
        line="candidates(lab.layout, cells, family, BEYOND)",
        becomes="candidates(lab.layout, cells, family)",
        tests=f"{VERDICTS}::test_a_rung_beyond_the_grid_is_a_rival_at_equal_seconds",
    ),
    Fault(
        what="open sides are followed without time kept for the verdict",
        file="sweep/grid.py",
        line="lab.clock.remaining > lab.keep_for_verdict_seconds + seconds",
        becomes="lab.clock.remaining > seconds",
        tests=f"{STUDIES}::test_open_sides_are_followed_only_while_the_verdict_keeps_its_time",
    ),
    Fault(
        what="a prediction's interval leaves out the scatter of runs",
        file="sweep/laws.py",
        line="law.run_interval(**variables)",
        becomes="law.interval(**variables)",
        tests=f"{STUDIES}::test_the_predicted_interval_holds_single_runs",
    ),
    Fault(
        what="seeds of the verdict are afforded at half their cost",
        file="sweep/afford.py",
        line="return step * rival.steps + forward_seconds(lab.layout, step, scored_tokens)",
        becomes="return 0.5 * (step * rival.steps + forward_seconds(lab.layout, step, scored_tokens))",
        tests=f"{STUDIES}::test_the_time_is_kept",
    ),
    Fault(
        what="seed noise divides by n",
        file="sweep/findings.py",
        line="sum(len(losses) - 1 for losses",
        becomes="sum(len(losses) for losses",
        tests=f"{VERDICTS}::test_seed_noise_comes_back",
    ),
    Fault(
        what="a run that shared the machine answers a timed task",
        file="runs/policy.py",
        line="if run is None or (task.alone and not run.alone):",
        becomes="if run is None:",
        tests="tests/runs/test_policy.py",
    ),
    Fault(
        what="the verdict's interval is one-sided",
        file="sweep/verdict.py",
        line="(1 + confidence) / 2",
        becomes="confidence",
        tests=f"{VERDICTS}::test_the_interval_of_a_verdict_covers_the_true_gap",
    ),
    Fault(
        what="the verdict trains with the grid's seed",
        file="sweep/rivals.py",
        line="rate, lab.seed + seed)",
        becomes="rate, lab.seed + seed - 1)",
        tests=f"{VERDICTS}::test_the_seeds_of_a_verdict_are_fresh",
    ),
    Fault(
        what="the largest budget is trained before it is predicted",
        file="sweep/driver.py",
        line="layout.budgets[:-1], {}, report",
        becomes="layout.budgets, {}, report",
        tests=f"{STUDIES}::test_the_prediction_is_written_before_the_largest_budget_and_knows_nothing_of_it",
    ),
    Fault(
        what="the verdict compares losses on validation text",
        file="sweep/verdict.py",
        line="return [run.test_loss for run in runs if run.test_loss is not None]",
        becomes="return [run.validation_loss for run in runs if run.validation_loss is not None]",
        tests=f"{VERDICTS}::test_a_verdict_is_about_test_text",
    ),
    Fault(
        what="the budget in seconds is that of a dense model that was not the FLOP winner",
        file="sweep/equal_cost.py",
        line="first[plan.budget_run].seconds / first[rivals.dense].seconds",
        becomes="first[rivals.dense].seconds / first[plan.budget_run].seconds",
        tests=f"{VERDICTS}::test_the_budget_in_seconds_is_the_dense_flop_winners_even_when_another_dense_model_runs",
    ),
    Fault(
        what="a side that is open to larger sizes does not count",
        file="sweep/rivals.py",
        line="if side is not None:\n            last",
        becomes='if side == "smaller":\n            last',
        tests=f"{STUDIES}::test_a_side_that_stays_open_leaves_the_verdict_undecided",
    ),
    Fault(
        what="a law is checked on runs that it was fitted to",
        file="sweep/laws.py",
        line="select(rows, top), before.law)",
        becomes="select(rows, top), law)",
        tests="tests/sweep/test_laws.py",
    ),
    Fault(
        what="a cell's loss is that of its first seed",
        file="sweep/cells.py",
        line="loss=float(np.mean(losses)),",
        becomes="loss=losses[0],",
        tests="tests/sweep/test_cells.py",
    ),
    Fault(
        what="a cell that diverged counts as a good one",
        file="sweep/cells.py",
        line="math.inf if self.loss is None",
        becomes="0.0 if self.loss is None",
        tests="tests/sweep/test_cells.py",
    ),
    Fault(
        what="new text is decoded without what stands before it",
        file="text/decoding.py",
        line="text = tokenizer.decode([*said, *held])",
        becomes="text = before + tokenizer.decode(held)",
        tests="tests/text/test_decoding.py",
    ),
    Fault(
        what="ids that the tokenizer lacks are drawn",
        file="model/greedy.py",
        line='logits_BV[:, self._columns] = float("-inf")',
        becomes="pass",
        tests="tests/serving/test_ending.py",
    ),
    Fault(
        what="the end tokens of config.json come before those of generation_config.json",
        file="serving/ending.py",
        line='("generation_config.json", "config.json")',
        becomes='("config.json", "generation_config.json")',
        tests="tests/serving/test_ending.py",
    ),
    Fault(
        what="the last tokens of a text are not scored",
        file="text/windows.py",
        line="rest = scored - (context + (whole - 1) * stride if whole else 0)",
        becomes="rest = 0 if whole else scored",
        tests="tests/text/test_windows.py",
    ),
    Fault(
        what="any number of bad lines is skipped",
        file="text/bad_lines.py",
        line="if self.bad > MOST_SHARE * self.read:",
        becomes="if False:",
        tests="tests/text/test_documents.py",
    ),
    Fault(
        what="a document of JSON lines is named by its count, so splits change",
        file="text/formats.py",
        line="for number, line in enumerate(lines_of(path), start=1):",
        becomes="for number, line in enumerate(lines_of(path), start=0):",
        tests="tests/text/test_known_digests.py",
    ),
    Fault(
        what="a head of a tied model's own is dropped",
        file="shape/hugging_face/held.py",
        line="elif not same_values(found[EMBEDDING], found[HEAD]):",
        becomes="elif False:",
        tests="tests/model/test_foreign.py::test_a_tied_model_with_another_head_uses_it_and_is_untied",
    ),
    Fault(
        what="the index does not decide which file holds a tensor",
        file="shape/hugging_face/files.py",
        line="[entry for entry in held if entry.file.name == indexed]",
        becomes="held",
        tests="tests/model/test_foreign.py::test_the_index_decides_which_file_holds_a_tensor",
    ),
    Fault(
        what="a family sends the worse of its two models",
        file="sweep/selection.py",
        line="losses[best] <= losses[chosen]",
        becomes="losses[best] >= losses[chosen]",
        tests=f"{SELECTION}::test_a_law_that_is_wrong_about_dense_sends_dense_too_wide_and_the_selection_mends_most_of_it",
    ),
    Fault(
        what="models are selected by the verdict's own runs",
        file="sweep/rivals.py",
        line="lab.seed + SELECTION_SEED + seed",
        becomes="lab.seed + seed",
        tests=f"{SELECTION}::test_the_runs_that_select_have_seeds_of_their_own",
    ),
    Fault(
        what="the law's choice goes unseen though a plain guess beat the law",
        file="sweep/selection.py",
        line="return check.law_on_the_same < min(check.baselines.values())",
        becomes="return True",
        tests=f"{SELECTION}::test_the_measured_best_goes_where_a_plain_guess_beat_the_law_or_none_was_checked",
    ),
    Fault(
        what="Huber's threshold is that of least squares",
        file="law/search.py",
        line="for _ in range(ROUNDS):",
        becomes="for _ in range(1):",
        tests="tests/law/test_search.py",
    ),
    Fault(
        what="a form is compared by another estimator than it is fitted with",
        file="law/choose.py",
        line="bootstrap=0, seed=seed, **how)",
        becomes="bootstrap=0, seed=seed)",
        tests="tests/law/test_fit.py",
    ),
    Fault(
        what="samples are refits to the residuals that a fit has bent towards",
        file="law/resample.py",
        line="surface.log_loss(points)[fold, np.arange(rows)]",
        becomes="surface.log_loss(best.point[None])[0]",
        tests="tests/law/test_coverage.py",
    ),
    Fault(
        what="runs of one group change sign each by itself",
        file="law/resample.py",
        line="groups = np.arange(len(target)) if groups is None else groups",
        becomes="groups = np.arange(len(target))",
        tests="tests/law/test_fit.py",
    ),
    Fault(
        what="terms that can take each other's place are not looked for",
        file="law/confounded.py",
        line="if back is not None and forth is not None:",
        becomes="if False:",
        tests="tests/law/test_confounded.py",
    ),
    Fault(
        what="choices are scored with their question counted in",
        file="evaluation/harness.py",
        line="return context, continuation",
        becomes="return context[:1], [*context[1:], *continuation]",
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="an answer's bits are per word, not per byte",
        file="evaluation/gold.py",
        line="/ len(text.encode())",
        becomes="/ len(text.split())",
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="bits per byte of an answer without ln 2",
        file="evaluation/gold.py",
        line="-nats / math.log(2)",
        becomes="-nats",
        tests="tests/evaluation/test_judge.py",
    ),
    Fault(
        what="an interval over questions where one passage has several",
        file="evaluation/judge.py",
        line='sample["doc"][fields[0]] if fields else',
        becomes="",
        tests="tests/evaluation/test_judge.py::test_questions_on_one_passage_are_one_observation",
    ),
    Fault(
        what="paired differences count each question of one passage",
        file="evaluation/compare.py",
        line="np.unique(groups, return_inverse=True)[1]",
        becomes="np.arange(len(groups))",
        tests="tests/evaluation/test_compare.py",
    ),
    Fault(
        what="a resumed evaluation states a speed",
        file="evaluation/judge.py",
        line="resumed=model.kept.reused > reused",
        becomes="resumed=False",
        tests="tests/verbs/test_evaluate.py",
    ),
    Fault(
        what="gates are a softmax over experts that are off, too",
        file="model/router.py",
        line='logits_TE = logits_TE.masked_fill(~kept_E, float("-inf"))',
        becomes="pass",
        tests=f"{REMOVAL}::test_masked_equals_removed",
    ),
    Fault(
        what="the routing bias keeps the rows of the first experts, not of those that stay",
        file="pruning/removal.py",
        line="yield _rows(tensor, list(on))",
        becomes='yield _rows(tensor, list(on) if name.part == "router" else list(range(len(on))))',
        tests=f"{REMOVAL}::test_masked_equals_removed",
    ),
    Fault(
        what="a row of the routing bias is left behind",
        file="pruning/removal.py",
        line='BY_EXPERT = ("router", "routing_bias")',
        becomes='BY_EXPERT = ("router",)',
        tests=f"{REMOVAL}::test_transformers_opens_the_smaller_folder_and_computes_the_same",
    ),
    Fault(
        what="a group of experts is emptied",
        file="pruning/kept.py",
        line="_best(scores[number], count, groups)",
        becomes="_best(scores[number], count, 1)",
        tests="tests/pruning/test_kept.py",
    ),
    Fault(
        what="an expert without a score stays",
        file="pruning/kept.py",
        line="np.where(np.isnan(scores_E), -np.inf, scores_E)",
        becomes="np.where(np.isnan(scores_E), np.inf, scores_E)",
        tests="tests/pruning/test_kept.py",
    ),
    Fault(
        what="a score's gate is taken before its scaling",
        file="pruning/gather.py",
        line="self._add(layer, expert, gate_n.double(), ",
        becomes="self._add(layer, expert, (gates_TK / gates_TK.sum(1, keepdim=True))[token_n, choice_n].double(), ",
        tests="tests/pruning/test_scores.py",
    ),
    Fault(
        what="an expert that no token reached has the score 0",
        file="pruning/scores.py",
        line="np.where(reached.tokens_E > 0, score_E, np.nan)",
        becomes="score_E",
        tests="tests/pruning/test_scores.py",
    ),
    Fault(
        what="the windows that calibrate are scored too",
        file="pruning/windows.py",
        line="self.pick(np.setdiff1d(np.arange(count), scored))",
        becomes="self.pick(np.arange(count))",
        tests="tests/pruning/test_windows.py",
    ),
    Fault(
        what="experts are merged without regard to their tokens",
        file="pruning/merging.py",
        line="share * member.values().double()",
        becomes="member.values().double() / len(members)",
        tests="tests/pruning/test_merging.py",
    ),
    Fault(
        what="layers are said to be cut in turn, and each is calibrated in the whole model",
        file="pruning/sequential.py",
        line="kept=masks(Kept(kept), shape)",
        becomes="kept=None",
        tests="tests/pruning/test_sequential.py",
    ),
)
