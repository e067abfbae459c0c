"""The command line: results on standard output, one line for bad input, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.cli.main import main
from sparsedial.cli.tables import TABLES, table_of
from sparsedial.errors import UserError
from sparsedial.records.answers import Trained
from sparsedial.records.record import plain
from sparsedial.units import human_count
from sparsedial.verbs import VERBS
from tests.showing.synthetic import bare_record
from tests.sweep.simulation import steady


def run(capsys, *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["stdy"], "no command named 'stdy'", "did you mean 'study'?"),
        (["count"], "'shape' is missing", "sparsedial count deepseek-v3"),
        (["count", "deepsek-v3"], "no published model named", "deepseek-v3"),
        (["count", "nowhere/config.json"], "nowhere/config.json: no such file", None),
        (["count", "qwen3-8b", "--json=1"], "--json takes no value", None),
        (["count", "qwen3-8b", "--dtype", "int8"], "no dtype named 'int8'", "float32"),
        (["count", "qwen3-8b", "--dtype", "int8"], "no dtype named 'int8'", "bfloat16"),
        (["count", "qwen3-8b", "--contxt", "5"], "no setting named 'contxt'", "--context"),
        (["prune", "/nowhere", "--batch", "2"], "no setting named 'batch'", "`sparsedial prune --help` lists them"),
        (["count", "qwen3-8b", "--context", "many"], "not a number", None),
        (["count", "qwen3-8b", "two"], "one argument too many", None),
        (["count", "qwen3-8b", "--context"], "needs a value", "`sparsedial count --help` says which"),
        (["study", "--time", "0"], "not a positive number", "like"),
        (["study", "--time", "10 parsecs"], "cannot read", "like"),
        (["study", "--time", "5s"], "--time: 5 s is too short", "about 3m"),
        (["study", "--time", "10m", "--budgets", "1e11,2e11"], "contradict", None),
        (["study", "--budgets", "2e11,1e11"], "rising", None),
        (["study", "--sparsities", "0,1.5"], "not at least 0 and below 1", None),
        (["study", "--sparsities", "0,0.7"], "needs 6.667 experts", None),
        (["study", "--sparsities", "0.5,0.75"], "needs 0 (dense)", None),
        (["study", "--seeds", "1"], "too few for an interval", None),
        (["study", "--device", "tpu"], "no device named", None),
        (["study", "/nowhere/at/all"], "/nowhere/at/all", None),
        (["study", "--status", "--out", "/nowhere"], "--out: /nowhere holds no study", None),
        (["train"], "no model", None),
        (["train", "--shape.layer", "3"], "shape: no setting named 'layer'", "did you mean 'layers'?"),
        (["train", "--recipe.lerning_rate", "3"], "recipe: no setting named", "learning_rate"),
        (["fit", "--form", "chinchila"], "no table", None),
        (["plan"], "no budget was given", "--flops"),
        (["plan", "--flops", "0"], "not a positive number", None),
        (["plan", "--flops", "-1e20"], "not a positive number", None),
        (["plan", "--flops", "1e40"], "not a realistic training budget", "1e26"),
        (["plan", "--flops", "1e20", "--joules", "5"], "contradict each other", None),
        (["plan", "--gpu-hours", "10h"], "--gpu-hours: cannot read '10h'", "500, without a unit"),
        (["plan", "--flops", "1e20", "--price", "0"], "not a positive number", "2.5"),
        (["plan", "--flops", "1e20", "--export", "/proc/nowhere"], "cannot write", "--export"),
        (["plan", "--dollars", "100", "--device", "h100"], "--price: dollars need the price", None),
        (["plan", "--seconds", "1d"], "joules and dollars need a machine", "h100"),
        (["plan", "--flops", "1e20", "--device", "h10"], "no device named 'h10'", "h100"),
        (["plan", "--flops", "1e20", "--law", "abnr"], "no published law named 'abnr'", "abnar"),
        (["dial", "runs/modle"], "runs/modle: no such file or folder", "a study's folder"),
        (["plan", "--flops", "1e20", "--law", "ling"], "ratio of compute", None),
        (["plan", "--flops", "1e20", "--law", "/nowhere/law.json"], "no such file", None),
        (["plan", "--flops", "1e20", "--top-k", "9", "--max-experts", "4"], "contradict", None),
        (
            ["plan", "--flops", "1e20", "--max-total-parameters", "1k"],
            "no shape respects",
            "the smallest that was considered",
        ),
        (["plan", "--flops", "1e20", "--devices", "0"], "below 1", None),
        (["plan", "--flops", "1e20", "--devices", "nan"], "not a number", None),
        (["plan", "--flops", "1e20", "--devices", "1e30"], "above", None),
        (["plan", "--flops", "1e20", "--context", "0"], "--context: 0 is below 1", None),
        (["plan", "--flops", "1e20", "--vocab-size", "0"], "--vocab-size: 0 is below 1", None),
        (["plan", "--flops", "1e20", "--top-k", "-1"], "--top-k: -1 is below 1", None),
        (["plan", "--flops", "1e20", "--top-k", "300"], "needs at least 600 experts", "--max-experts"),
        (["plan", "--flops", "1e20", "--max-repeats", "nan"], "not a number", None),
        (["plan", "--flops", "1e20", "--sparsity", "1"], "not at least 0 and below 1", "dense"),
        (["plan", "--flops", "1e20", "--sparsity", "0.3"], "no shape respects sparsity", "0.5"),
        (["plan", "--flops", "1e20", "--data-tokens", "1"], "--max-repeats", "more tokens"),
        (["plan", "--flops", "1e20", "--inference-tokens", "1e30"], "--inference-tokens alone", "larger budget"),
        (["plan", "--seconds", "1e40", "--device", "h100"], "not a realistic training budget", "1e26"),
        (["plan", "--dollars", "1e60", "--device", "h100", "--price", "2"], "not a realistic training budget", "1e26"),
        (["plan", "--flops", "1e20", "--out", ""], "file or folder is empty", None),
        (["plan", "--flops", "1e20", "--export", ""], "file or folder is empty", None),
        (["plan", "--flops", "1e20", "--out", "/proc/nowhere/plan.json"], "cannot write", "--out"),
        (["plan", "--target-loss", "1.0"], "no shape reaches", None),
        (["plan", "--target-loss", "100"], "already reach a loss below 100", "lower"),
        (["dial", "--port", "-1"], "--port: -1", "0 picks a free port"),
        (
            ["train", "qwen3-8b", "--threads", "0", "--tokens", "1k", "--recipe.batch", "0"],
            "--recipe.batch: 0 lies outside",
            None,
        ),
        (["train", "qwen3-8b", "--tokens", "1k", "--recipe.batch", "many"], "'many' is not a number", None),
        (["train", "qwen3-8b", "--tokens", "1k", "--recipe.steps", "5"], "contradict", "one of them"),
        (["train", "qwen3-8b", "--tokens", "1k", "--shape.vocab_size", "x"], "'x' is not a number", None),
        (["evaluate", "/nowhere", "--text", ""], "an entry is empty", None),
        (["evaluate"], "'checkpoint' is missing", "like `sparsedial evaluate"),
        (["evaluate", "/nowhere"], "no such folder", None),
        (["generate"], "'checkpoint', 'prompt' are missing", "like `sparsedial generate"),
        (["generate", "/nowhere"], "'prompt' is missing", "like `sparsedial generate"),
        (["generate", "/nowhere", "notes.toml"], "/nowhere: no such folder", None),
        (["generate", "/nowhere", "x", "--tokens", "0"], "--tokens: 0 lies outside", None),
        (["generate", "/nowhere", "x", "--temperature", "nan"], "not a number", None),
        (["evaluate", "/nowhere", "--text", "x"], "no such folder", None),
        (["generate", "/nowhere", "x"], "no such folder", None),
        (["study", "--config", "/nowhere.yaml"], "no such file", None),
    ],
)
def test_bad_input_is_one_line_and_a_hint_and_status_2(capsys, tmp_path, monkeypatch, words, says, hint):
    monkeypatch.chdir(tmp_path)
    if words[0] == "study" and "--out" not in words and "/nowhere.yaml" not in words:
        words = [*words, "--out", str(tmp_path / "out")]
    status, out, err = run(capsys, *words)
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert status == 2
    assert out == ""
    assert says in lines[0]
    assert len(lines) <= 2
    assert "Traceback" not in err
    if hint:
        assert hint in lines[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_python_function(capsys, verb):
    import sparsedial

    status, out, _ = run(capsys, verb, "--help")
    assert status == 0
    assert out.startswith(f"usage: sparsedial {verb}")
    assert all(len(line) < 140 for line in out.splitlines())
    assert getattr(sparsedial, verb).__name__ == verb


def test_the_overview_names_every_verb(capsys):
    _, out, _ = run(capsys)
    assert all(f"  {verb} " in out for verb in VERBS)


def test_json_is_one_object_with_the_promised_keys(capsys):
    status, out, err = run(capsys, "count", "deepseek-v3", "--json")
    result = json.loads(out)
    assert (status, err) == (0, "")
    assert set(result) == {
        "name", "total_parameters", "active_parameters", "active_parameters_one_embedding",
        "active_parameters_no_embedding", "sparsity", "forward_flops_per_token", "training_flops_per_token",
        "context_tokens", "dtype", "weight_bytes", "kv_cache_bytes_per_token",
    }  # fmt: skip
    assert result["context_tokens"] == 4096


def test_the_python_function_equals_the_command(capsys):
    import sparsedial

    _, out, _ = run(capsys, "count", "olmoe-1b-7b", "--json", "--dtype", "float32")
    assert plain(sparsedial.count("olmoe-1b-7b", dtype="float32")) == json.loads(out)


@pytest.mark.parametrize(
    ("verb", "positional", "named", "says"),
    [
        ("generate", ("/nowhere", "Once"), {}, "no such folder"),
        ("count", ("qwen3-8b", "two"), {}, "'two' is one argument too many"),
        ("plan", (1e20,), {}, "1e.20 is one argument too many"),
        ("count", ("qwen3-8b",), {"shape": "olmoe-1b-7b"}, "shape is given twice"),
        ("study", ("/nowhere/a", "/nowhere/b"), {"dry_run": True}, "/nowhere/a"),
        ("study", (["/nowhere/a", "/nowhere/b"],), {"dry_run": True}, "/nowhere/a: no such file"),
        ("evaluate", ("/nowhere",), {"text": Path("/nowhere/a")}, "/nowhere: no such folder"),
        ("generate", ("/nowhere", None), {}, "'prompt' is missing"),
        ("plan", (), {"flops": 1e20, "out": 3}, "out: cannot use 3 here"),
        ("count", ("qwen3-8b",), {"dtype": ["a"]}, "cannot use .'a'. here"),
    ],
)
def test_arguments_of_a_python_function_go_where_the_commands_go(tmp_path, verb, positional, named, says):
    import sparsedial

    named |= {"out": tmp_path / "out"} if verb == "study" else {}
    with pytest.raises(UserError, match=says):
        getattr(sparsedial, verb)(*positional, **named)


def test_none_is_as_if_a_setting_were_not_given():
    import sparsedial

    assert sparsedial.count("olmoe-1b-7b", dtype=None, context=None) == sparsedial.count("olmoe-1b-7b")
    with pytest.raises(UserError, match="no table"):
        sparsedial.fit(form=None)


def test_load_refuses_what_is_not_a_folders_name():
    import sparsedial

    with pytest.raises(UserError, match="None is not a folder's name"):
        sparsedial.load(None)  # type: ignore[arg-type]


def test_the_signature_of_a_python_function_tells_places_and_defaults():
    import inspect

    import sparsedial

    parameters = inspect.signature(sparsedial.generate).parameters
    assert [name for name, p in parameters.items() if p.default is p.empty] == ["checkpoint", "prompt"]
    assert parameters["tokens"].default == 200
    assert parameters["tokens"].kind is inspect.Parameter.KEYWORD_ONLY
    for verb in VERBS:
        assert inspect.signature(getattr(sparsedial, verb)).parameters


def test_a_settings_file_fills_and_flags_override(capsys, tmp_path: Path):
    (tmp_path / "job.yaml").write_text("shape: olmoe-1b-7b\ncontext: 128\ndtype: float32\n")
    _, out, _ = run(capsys, "count", str(tmp_path / "job.yaml"), "--context", "64", "--json")
    assert (json.loads(out)["context_tokens"], json.loads(out)["dtype"]) == (64, "float32")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tim: 3m", "{file}: no setting named 'tim'"),
        ("context: many", "{file}: context: 'many' is not a number"),
        ("context: [", "{file}: not readable as settings (expected the node content"),
    ],
)
def test_what_is_wrong_in_a_settings_file_is_said_with_the_files_name(capsys, tmp_path: Path, text, says):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    status, _, err = run(capsys, "count", "qwen3-8b", str(file))
    assert status == 2
    assert says.format(file=file) in err
    assert "<unicode string>" not in err


def test_what_a_settings_file_leaves_empty_keeps_its_default(capsys, tmp_path: Path):
    (tmp_path / "job.yaml").write_text("shape: olmoe-1b-7b\ncontext:\ndtype: null\n")
    _, out, _ = run(capsys, "count", str(tmp_path / "job.yaml"), "--json")
    assert json.loads(out)["dtype"] == "bfloat16"


def test_a_folder_that_holds_a_checkpoint_says_so(capsys, tmp_path: Path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    for words in (["evaluate", str(tmp_path), "--text", "x"], ["generate", str(tmp_path), "x"]):
        status, _, err = run(capsys, *words)
        assert status == 2
        assert f"hint: its checkpoint is {tmp_path / 'checkpoint'}" in err


def trained(**changes) -> Trained:
    """What `train` answers, of a simulated run of 300 steps."""
    run = replace(next(iter(steady().cells.values())).run, tokens=30_000)
    values = {name: getattr(run, name) for name in run.keys()}  # noqa: SIM118  # a record is no mapping
    return Trained(**{**values, "checkpoint": None, "branches": (), "tokens_asked": 3e4, **changes})


def test_a_training_that_diverged_ends_with_status_1_and_tells_the_tokens_it_came_to(capsys, monkeypatch):
    from sparsedial.verbs.train import train

    diverged = trained(status="diverged", reason="the loss is no number", steps_done=3, seconds=0.02)
    monkeypatch.setattr(train, "train", lambda settings: diverged)
    status, out, _ = run(capsys, "train", "qwen3-8b")
    assert status == 1
    tokens = 3 * diverged.recipe.batch * diverged.recipe.context
    assert f"{human_count(tokens)} of 30k in 20 ms" in out


def test_tokens_that_became_more_by_whole_steps_are_said():
    shown = table_of(trained(tokens=2_620_000, tokens_asked=1e6))
    assert "2.62M (1M were requested: a run has a whole number of steps)" in shown


def test_planning_commands_load_no_torch_and_answer_at_once():
    code = (
        "import sys; from sparsedial.cli.main import main\n"
        "main(['count', 'deepseek-v3', '--json']); main(['fit', '--list-forms'])\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules, 'too much was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("verb", "hint"), [("prune", "--layer-by-layer"), ("evaluate", "close other programs")])
def test_memory_that_runs_out_is_one_line_and_another_error_is_ours(verb, hint, monkeypatch, capsys):
    def ask(words):
        import torch

        return torch.empty(1 << 58)

    monkeypatch.setattr("sparsedial.cli.main._run", ask)
    assert main([verb]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: memory ran out: ")
    assert hint in said

    for error in (MemoryError("no scratch"), RuntimeError("a worker failed:\nTraceback\nMemoryError: no scratch")):

        def have_no_scratch(words, error=error):
            raise error

        monkeypatch.setattr("sparsedial.cli.main._run", have_no_scratch)
        assert main([verb]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: memory ran out: what the next step takes could not be had\n")
        assert hint in said

    def one_rank_has_none(words):
        said = "can't allocate memory: you tried to allocate 9 bytes"  # as PyTorch says it
        raise RuntimeError(f"rank 1 on gpu02 failed:\nTraceback\nRuntimeError: {said}")

    monkeypatch.setattr("sparsedial.cli.main._run", one_rank_has_none)
    assert main([verb]) == 2
    assert capsys.readouterr().err.startswith("error: rank 1 on gpu02: memory ran out: 9 B more could not be had\n")

    def fail(words):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr("sparsedial.cli.main._run", fail)
    with pytest.raises(RuntimeError):
        main([verb])


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path):
    command = f"{sys.executable} -m sparsedial.cli.main --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


def test_a_law_that_no_budget_checked_is_said_to_be_unchecked():
    study = bare_record()
    law = replace(study.law, form="chinchilla", refused=None, held_out=None)
    shown = table_of(replace(study, law=law).answer)
    assert "chinchilla; not checked: no budget was held out" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_answer_has_a_table(verb):
    answer = typing.get_type_hints(VERBS[verb].function)["return"]
    assert set(typing.get_args(answer) or (answer,)) <= set(TABLES)


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        (["fit", "t.csv", "--pin", "alpha"], "--pin: cannot read 'alpha'", "write it like alpha=0.34"),
        (["plan", "--flops", "1e18", "--law", "notes.txt"], "notes.txt: not readable as JSON", None),
        (["plan", "--flops", "1e18", "--law", "law.json"], "law.json: not readable as JSON", "it was cut short"),
        (["study", ""], "--text: an entry is empty", "files or folders"),
        (["study", "nothing"], "nothing: it holds no file", "is read from"),
        (
            ["study", "--tokenizer", "bpe:99999999"],
            "--tokenizer: cannot read 'bpe:99999999'",
            "257 to 1,000,000 tokens",
        ),
        (["study", "--tokenizer", "bert-base"], "--tokenizer: bert-base: no such file", "the path of a tokenizer.json"),
        (
            ["evaluate", "owner/name", "--text", "x"],
            "owner/name: no such folder",
            "`hf download owner/name --local-dir",
        ),
        (["evaluate", "nothing/name", "--text", "x"], "nothing/name: no such folder", None),
    ],
)
def test_a_hint_is_about_what_was_given(words, problem, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "t.csv").write_text("loss,total_parameters,tokens\n3,1e6,1e7\n")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "law.json").write_text('{"schema_version": 1, "form": "chinch')
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"error: {problem}" in said
    assert ("hint:" in said) == (hint is not None)
    assert hint is None or hint in said
