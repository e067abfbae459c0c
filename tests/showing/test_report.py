"""The report: one page that stands alone and says what the record holds, no more."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.quantities import Gap
from sparsedial.records.token_selection import ReferenceLossesFile, ReferenceModelCost, StudyTokens
from sparsedial.showing import words
from sparsedial.showing.best_words import best_sentences
from sparsedial.showing.drawing import NARROW_INCHES, WIDTH_INCHES
from sparsedial.showing.figures import FIGURES
from sparsedial.showing.glossary import GLOSSARY
from sparsedial.showing.page import command, table
from sparsedial.showing.report import compose, write_report

from .synthetic import bare_record, metered, study_record, with_verdict

VOID = {"meta", "link", "br", "hr", "img", "input"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    write_report(study_record(), out)
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


class Checker(HTMLParser):
    """Collects ids and text, and fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.text.append(data)


def read(page: str) -> Checker:
    checker = Checker()
    checker.feed(page.replace("<wbr>", ""))  # where a path may be broken
    assert checker.open == []
    return checker


def plain(page: str) -> str:
    return " ".join(" ".join(read(page).text).split())


def test_the_page_is_well_formed_and_its_ids_are_its_own(page: str) -> None:
    ids = read(page).ids
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert used
    assert used <= set(ids)


def test_the_page_fetches_nothing(page: str) -> None:
    assert not re.findall(r'(?:src|href|action)="(?!#)', page)
    assert "<script" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_picture_is_on_the_page_and_beside_it_as_png_and_svg(folder: Path, page: str) -> None:
    names = set(FIGURES) - {"joules"}
    for ending in ("png", "svg"):
        assert {path.stem for path in (folder / "figures").glob(f"*.{ending}")} == names
    assert page.count("<figure>") == len(names)
    assert page.count('role="img" aria-label="') == 2 * len(names)


def test_every_picture_is_drawn_for_a_phone_too(page: str) -> None:
    for name in set(FIGURES) - {"joules"}:
        widths = [
            float(re.findall(rf'class="{kind}"><svg[^>]*viewBox="0 0 ([0-9.]+)', part)[0])
            for part in page.split("<figure>")
            if f'id="{name}-narrow-' in part
            for kind in ("broad", "narrow")
        ]
        assert widths == pytest.approx([72 * WIDTH_INCHES, 72 * NARROW_INCHES]), name


def test_pictures_on_the_page_take_its_colours(page: str) -> None:
    pictures = "".join(re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", pictures)) <= {"#ffffff", "#000000"}
    for name in set(re.findall(r"var\(--([\w-]+)\)", pictures)):
        assert page.count(f"--{name}:#") == 2, f"{name} by day and by night"


def test_the_page_says_the_verdict_with_numbers_interval_and_seeds(page: str) -> None:
    text = plain(page)
    assert "At equal FLOPs sparse wins by 0.122 nats per token" in text
    assert "95 % interval 0.111 to 0.133, 5 seeds each" in text
    assert "At equal seconds the verdict is undecided" in text
    assert "the interval of the gap holds 0" in text


@pytest.mark.parametrize(
    "said",
    [
        "Held equal: training FLOPs by count",
        "expert sparsity 0.9375 alone stays within 0.5 %",
        "experts=32: the sparsest level tried (sparsity 0.9375)",
        "By the law sparse beats dense from 5.8 s on (interval 5.77 s to 5.82 s), inside",
        "relative error of 0.17 % in the median, 0.52 % at worst",
        "by 0.22 % in the median, “keep the last budget's best shape” by 11 %",
        "Coefficients that these data do not determine: e.",
        "51 MB, 700 documents and 50M training tokens",
        "ab" * 32,
        "the standard library of Python 3.11.7",
        "1 % of the test text's 64-byte windows also occur in the training text",
        "AMD EPYC 7713",
        "total wall time of training steps",
        "Energy is estimated, as seconds times a constant: stated.",
        "The cell that it predicted to be the best there was the best",
        "The longest run of the grid reads the training text",
        "sparsedial study --time 2h --out runs/bigger",
        "The table of all 68 cells",
    ],
)
def test_the_page_says(page: str, said: str) -> None:
    assert said in plain(page)


def test_a_bare_record_is_reported_with_its_reasons(tmp_path: Path) -> None:
    text = plain(write_report(bare_record(), tmp_path).read_text())
    assert "At equal seconds nothing was compared: fewer than two seeds" in text
    assert words.headline(bare_record().verdict) == "Not compared at equal FLOPs or at equal seconds"
    assert "fewer than two seeds of each family finished" in text
    assert "No law was fitted: only 2 budgets: at least 3 are needed." in text
    assert "diverged: loss is nan at step 41" in text
    assert "The answer is not limited by a bound" not in text
    assert not re.search(r"\b(None|nan|null)\b", text.replace("loss is nan", ""))


def test_timed_runs_are_described_where_some_were_made(page: str) -> None:
    assert "timed runs were alone" in plain(page)
    assert "timed runs" not in plain(compose(bare_record(), {}))


def test_a_study_whose_loss_counted_some_tokens_says_so_and_what_that_cost(page: str) -> None:
    assert "the loss counted" not in plain(page)
    reference = ReferenceLossesFile(
        reference=CheckpointName(path="reference", digest="ab" * 32, family="qwen3"),
        run=None,
        text_digest="ab" * 32,
        context_tokens=256,
        stride_tokens=128,
        tokens=1000,
        loss=2.0,
        step_nats=0.03,
        tokens_above=0,
        sha256="cd" * 32,
        cost=ReferenceModelCost(training_flops=3e10, scoring_flops=1e10, seconds=90.0),
    )
    said = plain(compose(replace(study_record(), token_selection=StudyTokens(share=0.6, reference=reference)), {}))
    assert "In every run the loss counted 60 % of each step's tokens" in said
    assert "That model took 4×10¹⁰ FLOPs and 90 s, which no run counts" in said


def test_the_words_of_a_command_do_not_break_at_their_hyphens_and_are_copied_as_they_are() -> None:
    long = "runs/" + "a-" * 30
    shown = command(f"sparsedial study --time 10m --out '<x>' {long}")
    assert '<span class="whole">--time</span> 10m' in shown
    assert f">{long}<" not in shown
    assert "".join(read(shown).text) == f"sparsedial study --time 10m --out '<x>' {long}"


def test_a_picture_that_no_longer_has_anything_to_show_is_taken_away(tmp_path: Path) -> None:
    stale = tmp_path / "figures" / "held_out.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of an earlier report")
    write_report(bare_record(), tmp_path)
    assert not stale.exists()


def test_words_from_outside_cannot_become_markup() -> None:
    study = study_record()
    machine = replace(study.machine, processor="<script>alert(1)</script>")
    page = compose(replace(study, machine=machine, next="sparsedial study <b>&</b>"), {})
    assert "<script" not in page
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in page


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"):
        write_report(study_record(), tmp_path)


def test_a_metered_study_has_a_verdict_at_equal_joules() -> None:
    text = plain(compose(metered(study_record()), {}))
    assert "At equal joules the verdict is undecided" in text
    assert "Energy is estimated" not in text


def test_optimizers_that_were_tried_are_named_and_so_is_each_model_s() -> None:
    study = study_record()
    assert "Muon" not in plain(compose(study, {}))
    sides = study.verdict.flops
    dense = replace(sides.dense, optimizer="muon")
    tried = replace(study, other_learning_rates=(replace(study.learning_rates, optimizer="muon"),))
    text = plain(compose(with_verdict(tried, "flops", dense=dense), {}))
    assert "tried with AdamW and Muon, and sent with the better one; the grid and the law are of AdamW" in text
    assert "Sparse is trained with AdamW, dense with Muon." in text
    assert "number of experts, optimizer and learning rate" in text
    assert re.search(r"Muon: (\d+) of \d+ learning-rate scans", text)
    both = with_verdict(study, "flops", dense=dense, sparse=replace(sides.sparse, optimizer="muon"))
    assert words.verdict_sentence(both.verdict, "flops").endswith("Both are trained with Muon.")
    assert "trained with Muon" in best_sentences(replace(study, best=replace(study.best, optimizer="muon")))[0]


def test_dense_that_wins_is_said_to_win() -> None:
    study = with_verdict(study_record(), "seconds", winner="dense", gap=Gap(mean=-0.05, low=-0.07, high=-0.03))
    said = words.verdict_sentence(study.verdict, "seconds")
    assert said.startswith("At equal seconds dense wins by 0.050 nats per token")
    assert "interval 0.030 to 0.070" in said


def test_no_crossover_is_said_with_its_reason() -> None:
    study = replace(study_record(), crossover=None, crossover_reason="sparse leads at every budget")
    assert "sparse leads at every budget" in words.crossover_sentence(study)


@pytest.mark.parametrize(
    ("value", "said"), [(2e12, "2×10¹²"), (1e10, "10¹⁰"), (7.4e10, "7.4×10¹⁰"), (9.97e9, "10¹⁰"), (0.02, "2×10⁻²")]
)
def test_powers_of_ten_read_as_people_write_them(value: float, said: str) -> None:
    assert words.power_of_ten(value) == said


def test_a_band_of_one_sparsity_is_not_called_a_range():
    study = study_record()
    wide, narrow = (
        replace(study, near_optimal=replace(study.near_optimal, sparsity=band))
        for band in ((0.86, 0.9375), (0.937501, 0.9375))
    )
    assert "from 0.86 to 0.9375 stays" in words.near_optimal_sentence(wide)
    assert "expert sparsity 0.9375 alone stays" in words.near_optimal_sentence(narrow)


def test_the_report_explains_the_words_that_the_readme_explains(page):
    assert set(re.findall("<dt>(.*?)</dt>", page)) == set(GLOSSARY)


def test_a_path_in_a_table_may_be_broken_behind_its_slashes_and_words_are_not():
    drawn = table(["a/b"], [["runs/mine/<checkpoint>", "tokens / s"]])
    assert "<td>runs/<wbr>mine/<wbr>&lt;checkpoint&gt;</td><td>tokens / s</td>" in drawn
