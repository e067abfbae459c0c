# Written by `python -m tests.stub` from the settings of each command.
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsedial.records.answers import Counts, Generation, Measured, Served, Trained
from sparsedial.records.compare import Compared
from sparsedial.records.dial_file import MeasuredDial
from sparsedial.records.dry_run import DialDryRun, EffectDryRun, PruneDryRun, StudyDryRun, TrainDryRun
from sparsedial.records.evaluation import EvaluateDryRun, Evaluation, Evaluations
from sparsedial.records.launch import JoinAnswer
from sparsedial.records.law import Fit, Forms
from sparsedial.records.optimum import Predicted
from sparsedial.records.plan import Plan
from sparsedial.records.prune import FixedSetting, Pruned
from sparsedial.records.selection import Selected, SelectionPipeline
from sparsedial.records.serving import ServeDryRun
from sparsedial.records.split import JoinedExperts, SplitExperts
from sparsedial.records.study import StudyAnswer, StudyStatus

WAITS: tuple[str, ...]
__version__: str

def load(folder: str | os.PathLike[str], setting: str | None = None) -> Any:
    """Load the model of a checkpoint folder, at a setting of its dial like `k=2`; on token ids it gives logits.

    Shapes: ids [B, S] to logits [B, S, V]
    Raises: UserError where tensors are missing, unexpected, wrongly shaped or damaged, for a setting that the
        checkpoint cannot have, or whose gates are not measured.
    """

def lm_eval_model(folder: str | os.PathLike[str], setting: str | None = None) -> Any:
    """The model of a checkpoint folder for lm-eval: `lm_eval.simple_evaluate(lm_eval_model(folder), tasks=[...])`.

    It may be at a setting of its dial, like `k=2`.

    Raises: UserError for a damaged checkpoint, a setting that it cannot have, or where lm-eval is missing.
    """
def study(
    text: str | Sequence[str] = ...,
    *,
    time: str | float | None = None,
    budgets: str | Sequence[float] = ...,
    sparsities: str | Sequence[float] = ...,
    top_k: int = 2,
    shared_experts: int = 1,
    tokenizer: str = 'bytes',
    context: int | None = None,
    batch: int | None = None,
    max_total_parameters: str | float | None = None,
    memory: str | float | None = None,
    seeds: int | None = None,
    seed: int = 0,
    cell_seeds: int = 1,
    form: str | None = None,
    optimizers: str | Sequence[str] = ...,
    probes: str | float | None = None,
    token_share: str | float | None = None,
    reference: str | None = None,
    select: str | None = None,
    keep: str | Sequence[float] = ...,
    workers: int | None = None,
    on: str = 'local',
    wait_for: int | None = None,
    device: str = 'auto',
    out: str | Path = 'runs/study',
    log: str | Sequence[str] = ...,
    force: bool = False,
    status: bool = False,
    dry_run: bool = False,
) -> StudyAnswer | StudyDryRun | StudyStatus:
    """Measure the best sparsity on a text and a machine, and compare it with the best dense model at equal cost.

    Writes report.html, figures, study.json, law.json, profile.json, plan.json, the runs and the verdict's checkpoints
    to `out`. Started again there, it continues where it stopped.

    Raises: UserError for bad input, a text too small, a time too short, or a folder in use or not writable.

    Settings:
        text: files or folders of text [Python's standard library]
        time: time for the whole command, like 30m or 1h30m [10m]
        budgets: the budgets in training FLOPs, instead of --time
        sparsities: sparsities to compare, 1 - top_k/experts; 0 is dense
        top_k: routed experts per token
        shared_experts: shared experts, which every token uses
        tokenizer: how text becomes tokens
        context: tokens per training window [64, or 128 if --time is 40m or more; on a GPU up to 256]
        batch: maximum sequences per step; short runs use fewer [16, or as many as fill the GPU]
        max_total_parameters: leave out larger models
        memory: memory for all workers together, like 3GB
        seeds: new seeds for the verdict [3, or up to 5 if time allows]
        seed: seed of the grid; change it to repeat the study with new runs
        cell_seeds: seeds per cell at the two largest budgets; cheaper cells get more
        form: form of the scaling law [with four or more budgets `sparsity_by_size_and_tokens`; with fewer, the one that predicts best]
        optimizers: optimizers: the grid's, then others; each rival of the verdict gets the best one for it [adamw,muon; adamw if --time is below 10m]
        probes: share of the training tokens that are arithmetic, facts and passages to be asked about, like 8% [none]
        token_share: share of the tokens of each step that the loss counts, like 60%: those that the model predicts worst beside a reference model; all are read [all]
        reference: the checkpoint that tokens are selected by [a small model, trained on a sample of the text]
        select: also train the best sparse and the best dense model on less text, chosen by duplicates, random, reference-loss, reference-loss:low, reference-loss:middle, reference-loss:high, gopher, c4, fineweb [none]
        keep: shares of the text for --select [1,.5,.25; of a filter all that it leaves]
        workers: runs at once, each a process of one thread [one per core, the maximum]; on a GPU all are in one process [as many as its profile finds fastest]
        on: also train on other machines: join lets in those where `sparsedial join` is typed, slurm and ray start workers on all nodes of an allocation or a cluster
        wait_for: workers of other machines to wait for before the grid is planned, 5 minutes at most [with slurm and ray all]
        device: device to train on
        out: the study's folder; the same command continues a stopped study
        log: also write the training curves for other programs: csv, tensorboard, wandb [metrics.jsonl of each run alone]
        force: write to --out although it holds other files; none of them is overwritten
        status: show the progress of the study in --out and exit
        dry_run: show what the study would cost and exit
    """
def join(
    study: str | Path,
    *,
    workers: int | None = None,
    wait: str | float | None = None,
    name: str | None = None,
) -> JoinAnswer:
    """Train runs of a running study on this machine, until the study ends or Ctrl-C.

    The study's folder must be seen from both machines, and both need the same versions. What is not finished when this
    machine leaves is trained by another one.

    Raises: UserError where the folder is not here, no study is running in it that lets others in, or it cannot be
        reached, or lets these workers not in.

    Settings:
        study: the folder of a study that was started with --on, by a path on this machine
        workers: runs at once, each a process of one thread
        wait: time to wait for the study to begin, like 10m
        name: this machine's name in the study's record
    """
def count(
    shape: str,
    *,
    context: int | None = None,
    dtype: str = 'bfloat16',
    with_mtp: bool = False,
) -> Counts:
    """Parameters, FLOPs per token at a context, bytes of weights and cache, and the three measures of sparsity.

    Raises: UserError for an unknown name, family or dtype, or a context outside the model's.

    Settings:
        shape: a config.json, a shape.json, or a published name
        context: context length for the FLOPs of attention [the model's own, at most 4096]
        dtype: data type of weights and cache
        with_mtp: include the multi-token prediction modules
    """
def fit(
    table: str | Path | None = None,
    *,
    form: str | Sequence[str] = ...,
    columns: str | Mapping[str, Any] = ...,
    where: str | None = None,
    best_of: str | Sequence[str] = ...,
    weight: str | None = None,
    hold_out: str | None = None,
    group: str | None = None,
    pin: str | Mapping[str, Any] = ...,
    prior: str | Mapping[str, Any] | None = None,
    huber: float | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    counting: str | None = None,
    at: str | Sequence[float] = ...,
    predict: str | Path | None = None,
    law: str | None = None,
    out: str | Path | None = None,
    list_forms: bool = False,
) -> Fit | Forms | Predicted:
    """Fit a form to runs: its coefficients, the best size and tokens for a budget, and a held-out check.

    A table that cannot support the form is refused with the reason. A refusal is a result, not an error. With a law
    that was fitted before, a table is predicted instead.

    Raises: UserError for an unreadable table, or missing columns that the form needs.

    Settings:
        table: folder of a study or of runs, or a .csv, .tsv, .jsonl, .json or .parquet file
        form: names from --list-forms, simplest first; of several, the one that predicts held-out runs best is used
        columns: where the table has loss, tokens, …: its columns, or arithmetic like loss=log(ppl),tokens=D*1e9; a name with a comma stands in backticks
        where: rows to keep, like step==250000; by the table's names or ours
        best_of: columns of settings, like lr: of the runs of one size and tokens, only those with the best stay
        weight: column or arithmetic that says how often each row counts
        hold_out: rows to hold out, like flops>1e12, by the table's names or ours; or sparsest [the largest budget]
        group: columns that tell which rows are one run, or not independent; row takes each for itself [trunk, if there is one, or what tells checkpoints of a run]
        pin: coefficients to keep fixed
        prior: what to expect of exponents beside the runs: a value and the standard deviation of its logarithm, like beta=0.37:0.2, or none [a study's or runs of ours: beta=0.37:0.2; other tables: none]
        huber: log-loss residual above which a run counts less [from the spread]
        bootstrap: number of refits to resampled residuals, for the intervals
        seed: seed of the resampling
        counting: how sizes were counted: with-embeddings, without-embeddings or both-embeddings [from the names]
        at: budgets to split best [the largest, and ten times it]
        predict: also predict the rows of this table, into the file of --out
        law: predict by this law: a law.json, a study's folder or a name; fit none
        out: also write the law to this file; with --predict, the predictions
        list_forms: list the forms and exit
    """
def profile(
    *,
    time: str | float = 60.0,
    device: str = 'auto',
    threads: int | None = None,
    batch: int = 8,
    context: int = 256,
    vocab_size: int = 4096,
    widths: str | Sequence[int] = ...,
    tune: bool = False,
    out: str | Path = 'profile.json',
) -> Measured:
    """Measure seconds, joules and bytes of training steps here, and write the profile that `plan --device` takes.

    Raises: UserError for impossible shapes, or a missing GPU.

    Settings:
        time: time for timing steps, at least a few per shape; before that, measuring memory takes half a minute or more
        device: device to measure
        threads: CPU threads [one per core]
        batch: sequences per step
        context: tokens per sequence
        vocab_size: vocabulary size
        widths: d_model of the measured shapes
        tune: also time the experts' GPU kernels with other tiles, and write the fastest
        out: the file to write
    """
def plan(
    *,
    flops: str | float | None = None,
    seconds: str | float | None = None,
    gpu_hours: str | float | None = None,
    joules: str | float | None = None,
    dollars: str | float | None = None,
    target_loss: str | float | None = None,
    law: str = 'abnar',
    device: str | None = None,
    devices: int = 1,
    price: str | float | None = None,
    max_total_parameters: str | float | None = None,
    max_active_parameters: str | float | None = None,
    max_experts: int | None = None,
    top_k: int | None = None,
    sparsity: float | None = None,
    memory: str | float | None = None,
    serving_memory: str | float | None = None,
    serving_context: int = 8192,
    serving_sequences: int = 1,
    decode_speed: str | float | None = None,
    data_tokens: str | float | None = None,
    max_repeats: float = 4.0,
    inference_tokens: str | float | None = None,
    context: int | None = None,
    vocab_size: int | None = None,
    out: str | Path | None = None,
    export: str | Path | None = None,
) -> Plan:
    """The best shape and tokens for a budget, with the error, the dense rival, the limits, and other laws' answers.

    Raises: UserError for an unknown law or device, or where no shape meets the budget and the constraints.

    Settings:
        flops: training FLOPs, like 1e21
        seconds: wall-clock time on the machine, like 10d
        gpu_hours: device-hours, all devices together
        joules: energy, like 2.5kWh
        dollars: money; needs --price
        target_loss: loss to reach at the lowest cost, nats per token
        law: a published law, a law.json, or a study's folder
        device: device to train on, like h100, or a profile.json [a study's own]
        devices: number of devices
        price: dollars per device-hour
        max_total_parameters: maximum total parameters, like 30B
        max_active_parameters: maximum parameters active per token
        max_experts: maximum routed experts per layer
        top_k: routed experts per token
        sparsity: allow only this sparsity, 1 - top_k/experts; 0 is dense
        memory: memory for training, on all devices together, like 640GB
        serving_memory: memory for weights and cache when serving
        serving_context: positions in the cache when serving
        serving_sequences: sequences served at once
        decode_speed: minimum tokens per second of one sequence
        data_tokens: unique tokens available [of a study with --select, those it keeps]
        max_repeats: maximum number of times that the data are read
        inference_tokens: tokens served over the model's life, paid from the budget
        context: tokens per training window [2048]
        vocab_size: vocabulary size [50432]
        out: also write the plan to this file
        export: also write files for train, transformers, torchtitan and Megatron-LM to this folder
    """
def dial(
    law: str = 'abnar',
    *,
    port: int = 8765,
    open: bool = False,
    measure: bool = False,
    text: str | Sequence[str] = ...,
    settings: str | Sequence[str] = ...,
    calibrate: str | Sequence[str] = ...,
    context: int | None = None,
    scored_tokens: int = 16384,
    dry_run: bool = False,
    out: str | Path | None = None,
) -> Served | MeasuredDial | DialDryRun:
    """Serve the dial page until Ctrl-C; or measure each setting of a checkpoint and write dial.json, or say what that
    would cost.

    Raises: UserError for an unknown law, a port in use, or missing libraries; and for a damaged checkpoint, a setting
    that it cannot have, or a text that is too short or does not fit it.

    Settings:
        law: a published law, a law.json, a study's or a checkpoint's folder
        port: local port; 0 picks a free one
        open: open the page in the browser
        measure: measure loss, speed, memory and energy of a checkpoint's settings, without a page
        text: with --measure: files or folders of text for the loss
        settings: with --measure: settings like `k=2;k=1,skip=3` or `neurons=0.5`; all: k as trained, half of it and so on to one, or of a dense checkpoint some shares of its neurons
        calibrate: with --measure: text that gates are measured on, for a share of the neurons
        context: with --measure: tokens per window of text
        scored_tokens: with --measure: tokens that the loss is measured on, at most
        dry_run: with --measure: show what it would cost, and exit
        out: with --measure: the file to write
    """
def select(
    text: str | Sequence[str] = ...,
    *,
    out: str | Path,
    near: str | float = 0.8,
    quality: str | Sequence[str] = ...,
    spans: str | float | None = None,
    tasks: str | Sequence[str] = ...,
    data: str | Path | None = None,
    contaminated: str = 'remove',
    keep: str | float | None = None,
    keep_by: str = 'text',
    score: str = 'random',
    side: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    measure: bool = False,
    time: str | float | None = None,
    budgets: str | Sequence[float] = ...,
    seeds: int = 5,
    tokenizer: str = 'bytes',
    probes: str | float | None = None,
    device: str = 'auto',
    emit: str | None = None,
    dry_run: bool = False,
) -> Selected | EffectDryRun | SelectionPipeline:
    """Write a manifest that says of each document of a text whether it stays, and if not, why.

    What holds items of `tasks`, what breaks a rule of quality, and copies are left out of the train split, and with
    `keep` all but a share of the rest. Held-out text stays as it is. No text is copied: `study` and `train` read the
    folder as the text without what is left out. The folder appears when it is whole. With `measure` equal models are
    then trained on what stays, on a random part of its size, and on the full text; the same settings go on with a
    measurement that was stopped. With `emit` only a script is written.

    Raises: UserError for a bad, empty or small text, one of which nothing is left, a folder that is not free or cannot
    be written, a task that is unknown or whose items cannot be had, and where rensa, lm-eval for tasks, or PyTorch for
    a model is missing.

    Settings:
        text: files or folders of text [Python's standard library]
        out: a new folder for the manifest and the examples
        near: share of two documents' runs of five words that makes them copies
        quality: leave out what breaks rules made for English web pages: gopher, c4, fineweb
        spans: share of a document that may be passages of 50 words that stand in one before [not looked for]
        tasks: leave out what holds items of these tasks, lm-eval's; needs sparsedial[evaluate]
        data: the folder that holds the tasks' items [the Hub]
        contaminated: whether what holds such items goes, or is only told
        keep: share of the train text's bytes that stays, of what is left without copies [all of it]
        keep_by: whether that is a share of the whole text or of each domain
        score: by which --keep chooses: random, reference-loss
        side: losses that stay with --score reference-loss [low]
        seed: of what is drawn at random
        workers: processes that compare documents, or train models [one per core; one for a small text]
        measure: train equal models on what stays, on a random part and on all, and compare them
        time: time for --measure, like 10m or 1h [10m]
        budgets: two budgets for --measure in training FLOPs, instead of --time
        seeds: runs of each part at each budget
        tokenizer: of the models that --measure trains
        probes: share of each part's training tokens that are probes, which --measure asks its models, like 8% [none]
        device: device to train on
        emit: write a script that does this with another program, for text larger than one machine
        dry_run: show what --measure would cost and exit
    """
def train(
    model: str | None = None,
    *,
    text: str | Sequence[str] = ...,
    tokens: str | float | None = None,
    branches: str | Sequence[float] = ...,
    shape: Mapping[str, Any] = ...,
    recipe: Mapping[str, Any] = ...,
    dial: str | Sequence[int] = ...,
    dial_by: str = 'step',
    dial_end: str = 'highest',
    token_share: str | float | None = None,
    reference: str | None = None,
    tokenizer: str | None = None,
    device: str = 'auto',
    threads: int | None = None,
    ranks: int | None = None,
    out: str | Path = 'runs/train',
    log: str | Sequence[str] = ...,
    force: bool = False,
    dry_run: bool = False,
) -> Trained | TrainDryRun:
    """Train one model and write its checkpoint and its record. Started again, it continues where it stopped.

    A checkpoint is trained further: its shape, its tokenizer and its other files stay, and its optimizer starts anew.
    With a dial the number of experts that tokens visit changes from step to step, and the end states the loss at each.
    With branches, shorter runs come first, and each run continues the one before. Their records share a trunk.
    With a token share the loss counts those tokens of each step that a reference model predicts better.
    Processes that torchrun or Slurm started train it together, and so do as many as `ranks` asks for.

    Raises: UserError for settings that make no model or run, or contradict a checkpoint; a text that is too small, a
        folder in use or not writable; RankLost where one of several processes has gone.

    Settings:
        model: a plan or its folder, a checkpoint to go on from, a config.json, a shape.json or a published name
        text: files or folders of text [Python's standard library]
        tokens: number of training tokens
        branches: tokens of shorter runs that share the first steps of this one (schedule wsd)
        shape: one size of the shape; overrides the model's own
        recipe: one setting of the training recipe; overrides the plan's
        dial: numbers of experts that tokens visit, drawn from step to step, so that one model serves them all
        dial_by: whether all layers of a step have the same number
        dial_end: the number that tokens visit in the last tenth of the steps
        token_share: share of the tokens of each step that the loss counts, like 60%: those that the model predicts worst beside a reference model; all are read [all]
        reference: the checkpoint that tokens are selected by [a small model, trained on a sample of the text]
        tokenizer: how text becomes tokens [the plan's or the checkpoint's own, else bytes]
        device: device to train on
        threads: CPU threads, of all ranks on a machine together [one per core]
        ranks: processes on this machine that train the model together, each with a share of every batch; torchrun and srun start them on several [1]
        out: the run's folder; the same command continues a stopped run
        log: also write the training curves for other programs: csv, tensorboard, wandb [metrics.jsonl of each run alone]
        force: write to --out although it holds other files; none of them is overwritten
        dry_run: show what the run would cost and exit
    """
def evaluate(
    checkpoint: str | Sequence[str],
    *,
    text: str | Sequence[str] = ...,
    context: int | None = None,
    stride: int | None = None,
    settings: str | Sequence[str] = ...,
    tasks: str | Sequence[str] = ...,
    data: str | Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    against: str | Sequence[str] = ...,
    chat: bool = False,
    out: str | Path = 'runs/evaluate',
    dry_run: bool = False,
) -> Evaluation | Evaluations | EvaluateDryRun:
    """Loss in nats per token and bits per byte of a text, each token scored once; scores on tasks; or their cost.

    One checkpoint gives its own answer; several, or several settings of its dial, are also compared, on the same items.

    Raises: UserError for a damaged checkpoint, a text that is missing, empty or does not fit the model, or a task that
    is unknown or whose items cannot be had.

    Settings:
        checkpoint: checkpoint folders; several are compared on the same items
        text: files or folders, all of their text; a folder's sub-folders are domains
        context: tokens per window of the text [the model's own]
        stride: tokens by which windows move; each scores its last ones [context]
        settings: settings of the dial, as `k=2;k=1,skip=3`; all: those of dial.json, else k as trained, half of it and so on
        tasks: tasks or groups of them: reading, mathematics, knowledge, all; needs sparsedial[evaluate]
        data: the folder that holds the tasks' items [the Hub]
        limit: items of each task, its first ones [all]
        shots: solved examples before each item [as the task says]
        against: training text; items that stand in it are counted, and scores are also given without
        chat: ask by the tokenizer's chat template
        out: folder for the tasks' answers; the same command continues a stopped one
        dry_run: show how much the tasks would read and write, and exit
    """
def prune(
    checkpoint: str | Path,
    *,
    keep: str | float | None = None,
    total_parameters: str | float | None = None,
    active_parameters: str | float | None = None,
    memory: str | float | None = None,
    speed: str | float | None = None,
    max_loss_increase: str | float | None = None,
    calibrate: str | Sequence[str] = ...,
    out: str | Path,
    also: str | Sequence[str] = ...,
    method: str = 'reap',
    budget: str = 'uniform',
    pattern: str | None = None,
    sequential: bool = False,
    context: int | None = None,
    calibration_tokens: int = 65536,
    scored_tokens: int = 16384,
    seed: int = 0,
    recover: str | float | None = None,
    recover_by: str = 'loss',
    tasks: str | Sequence[str] = ...,
    data: str | Path | None = None,
    limit: int | None = None,
    against: str | Path | None = None,
    layer_by_layer: bool = False,
    compare: str | Sequence[str] = ...,
    strengths: str | Sequence[float] = ...,
    fix_setting: str | None = None,
    split_experts: int | None = None,
    always: int | None = None,
    top_k: int | None = None,
    dry_run: bool = False,
    join_experts: bool = False,
) -> Pruned | FixedSetting | Compared | SplitExperts | JoinedExperts | PruneDryRun:
    """Write a checkpoint without the experts, layers, neurons or weights that matter least, and measure it beside it.

    The method says what goes, and the text what of it matters. How much goes is a share, or as little as keeps a size
    or a speed, or as much as keeps a loss; for the last two, shares are tried. Loss is measured on windows that take no
    part in the scores, on a second text, and for a random choice of as much too. The folder appears when it is whole;
    the original is only read.

    With `recover` what stays is then trained on the calibration text. With `against` the answer also says what a lower
    k or a trained sparser model gives at as many active parameters. Stopped, the same command goes on: from the last
    layer that was done, the last share that was tried, the last point of a comparison, or the last saved step.

    Other jobs: with `compare` several methods are tried at several shares, and what is written is a comparison. With
    `split_experts` a dense checkpoint gets experts, of which all together are the dense one, and some numbers of them
    are measured; `recover` then trains it at `top_k` of them. `join_experts` gives the dense one back. With
    `fix_setting` it is the checkpoint at a setting of its dial that is written, and nothing is measured.

    With `dry_run` the answer says what a choice, a comparison or a division would cost, and nothing is written.

    Raises: UserError for a damaged checkpoint, one that has no such part, a share that it does not allow, a target
    that nothing keeps, a text that is too short, foreign or does not fit the model, a task that is unknown or does not
    fit it, a recovery that diverges, or a folder that is not free.

    Settings:
        keep: share that stays of the experts, layers, neurons or weights, as 0.5
        total_parameters: instead of a share: the most parameters of the result, as 3B
        active_parameters: instead: the most parameters that a token uses, as 400M
        memory: instead: the most bytes of its weights, as 8GB
        speed: instead: how many times as fast it writes, at least, as 1.5x; shares are tried
        max_loss_increase: instead: the most that the loss on the calibration text may grow, as 2%; shares are tried
        checkpoint: a checkpoint folder, which stays as it is
        calibrate: files or folders of text like what the model is for: they decide what stays
        out: a new folder for the smaller checkpoint
        also: text of another kind, to see what the calibration text cannot show
        method: what is turned off and what of it matters, for experts: reap, frequency, ean, man, msan, naee, hc-smoe, random; layers: block-influence, random-layers; neurons: activation, random-neurons; weights: magnitude, wanda, sparsegpt, random-weights
        budget: the same share of each layer, or `global`: layers compete, and only sparsedial reads the result
        pattern: of weights: 2:4 turns two of each four neighbouring inputs off
        sequential: calibrate each layer in the model whose earlier layers are cut already
        context: tokens per window of text
        calibration_tokens: tokens that the scores come from, at most
        scored_tokens: tokens of each text that the loss is measured on, at most
        seed: of the random choices that the result is compared with
        recover: train what stays on so many tokens of the calibration text, as 20M
        recover_by: what it learns then: the text, or the original's predictions
        tasks: score tasks before and after too, as `evaluate` does; needs sparsedial[evaluate]
        data: the folder that holds the tasks' items [the Hub]
        limit: items of each task, its first ones [all]
        against: a study, to compare the result with a lower k and with a trained sparser model
        layer_by_layer: hold one layer in memory at a time, for checkpoints larger than it; no speed is measured then
        compare: instead: try several methods at several --strengths, and keep no checkpoint
        strengths: the shares of a comparison, as .75,.5
        fix_setting: instead: write what the checkpoint is at a setting of its dial, as k=2 or skip=3, for any program
        split_experts: instead: divide the neurons of a dense checkpoint into N experts
        always: with it: width of the part that all tokens visit, in experts
        top_k: with it: experts that a token visits unless told otherwise
        dry_run: show what a choice, a comparison or a division would cost, and exit
        join_experts: instead: give back the dense checkpoint that was divided so
    """
def generate(
    checkpoint: str | Path,
    prompt: str,
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    chat: bool = False,
    speculate: bool = False,
    dtype: str | None = None,
    at_least: str | float | None = None,
    at_most: str | float | None = None,
    max_loss_increase: str | float | None = None,
    setting: str | None = None,
) -> Generation:
    """Continue a prompt token by token, with a cache.

    `say` gets the prompt, or nothing of a chat's, and then the text piece by piece as it comes.

    Raises: UserError for a damaged checkpoint, an empty prompt, or settings outside their range.

    Settings:
        checkpoint: a checkpoint folder
        prompt: the text to continue
        tokens: maximum number of new tokens
        temperature: sampling temperature; 0 always takes the most likely token
        top_k: sample from the K most likely tokens
        top_p: sample from the most likely tokens up to this total probability
        seed: seed for sampling
        chat: answer the prompt as the message of a user, by the tokenizer's chat template
        speculate: draft tokens with multi-token prediction: the greedy text (up to rounding) in fewer passes
        dtype: hold the weights in float32, or in bfloat16: half the bytes [as the checkpoint has them]
        at_least: a speed: take the setting of the lowest loss that keeps it, by dial.json
        at_most: an energy: the same
        max_loss_increase: an added loss over the default's: take the cheapest setting that keeps it
        setting: setting of the checkpoint's dial, as k=2, p=0.5, neurons=0.5, skip=3+7 or k=2,skip=3 [as it was trained]
    """
def serve(
    checkpoint: str | Path,
    *,
    host: str = '127.0.0.1',
    port: int = 8000,
    slots: int = 8,
    context: int | None = None,
    name: str | None = None,
    api_key: str | None = None,
    open: bool = False,
    dry_run: bool = False,
    dtype: str | None = None,
    at_least: str | float | None = None,
    at_most: str | float | None = None,
    max_loss_increase: str | float | None = None,
    setting: str | None = None,
) -> Served | ServeDryRun:
    """Serve a checkpoint until Ctrl-C, by OpenAI's API; a request says at which setting it is answered.

    Raises: UserError for a damaged checkpoint, a setting that it cannot have, too little memory, a port in use, or
        missing libraries.

    Settings:
        checkpoint: a checkpoint folder
        host: address to listen on; 0.0.0.0 lets other machines in
        port: port to listen on; 0 picks a free one
        slots: answers that are written at once; others wait
        context: tokens of a prompt and its answer together
        name: the model's name in requests
        api_key: ask requests for this key; better given as SPARSEDIAL_API_KEY, which no list of processes shows
        open: open the page of the server in the browser
        dry_run: say what it would hold in memory, and its settings, and stop
        dtype: hold the weights in float32, or in bfloat16: half the bytes [as the checkpoint has them]
        at_least: a speed: take the setting of the lowest loss that keeps it, by dial.json
        at_most: an energy: the same
        max_loss_increase: an added loss over the default's: take the cheapest setting that keeps it
        setting: setting of the checkpoint's dial, as k=2, p=0.5, neurons=0.5, skip=3+7 or k=2,skip=3 [as it was trained]
    """
