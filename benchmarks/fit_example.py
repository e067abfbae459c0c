"""The worked example of docs/laws.md and docs/planning.md: a published table, from its columns to a plan.

Every output is computed when the pages are written, from benchmarks/data/overtraining.csv.
"""

from __future__ import annotations

import shlex
import shutil
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sparsedial.cli.arguments import read_arguments
from sparsedial.cli.tables import table_of
from sparsedial.verbs import VERBS

TABLE = Path(__file__).parent / "data" / "overtraining.csv"
COLUMNS = "--columns 'total_parameters=params,flops=6*params*tokens'"
SETTINGS = f"--form chinchilla {COLUMNS} --where \"train_set=='rpj'\""
FIT = f"fit runs.csv {SETTINGS} --hold-out 'flops>1e20' --out law.json"
PREDICT = f"fit --law law.json --predict runs.csv {COLUMNS} --where \"train_set=='c4_original'\" --out c4.csv"
PLAN = "plan --flops 1e21 --law law.json"

PAGE = """## A fit, from columns to plan

A published table: the 104 dense models of Gadre et al. 2024 (arXiv 2403.08540, MIT licence), in
[`benchmarks/data`](../benchmarks/data/README.md). It has a row for each model:

```console
{head}
```

Say which column is what (`--columns` takes arithmetic too), which rows to keep (`--where`: the models trained on
RedPajama), and which to hold out for the check: here those above 1e20 FLOPs. Every output on this page is
computed when the page is written.

{fit}

* **coefficients** carry intervals from refits to resampled residuals. *not determined* marks those that these runs
  leave open.
* **outlier** lists the rows farthest from the law, in robust spreads of the runs; **misfit** names a variable that the
  residuals follow: then the form is not the law of these runs.
* **best split** answers what a law is fitted for: how the best size and the best tokens grow with compute, and what
  they are for a budget, by default the largest of the table and ten times it (`--at 1e22,1e23` asks for others). The
  intervals come from the same refits. *beyond the runs* says how far an answer extrapolates.
* **by parabolas** is the iso-FLOP method beside it, where a table has lines of equal compute. It needs three sizes for
  each of two budgets, with the best between the others. Its minima are shifted even without noise (Czech et al., arXiv
  2603.22339), so the table says by how much: what it gives on the law's own losses of the same runs. This table has no
  such lines.
* **held out** compares the law with plain guesses at the best of the held-out runs. Where a guess wins, a *note* says
  so.

The law predicts other rows of the table, or another table; the predictions stand beside its columns, with intervals of
the law (`predicted_low`, `predicted_high`) and of a single run (`run_low`, `run_high`):

{predict}

[From a budget to a configuration](planning.md#with-a-law-of-your-own) plans with this law.
"""


@cache
def _outputs() -> dict[str, str]:
    """What the three commands print, run after one another in one folder."""
    printed = {}
    with TemporaryDirectory() as folder, chdir(folder):
        shutil.copy(TABLE, "runs.csv")
        for command in (FIT, PREDICT, PLAN):
            name, *words = shlex.split(command)
            verb = VERBS[name]
            printed[command] = table_of(verb.function(read_arguments(verb, words).settings))
    return printed


def _console(command: str) -> str:
    return "\n".join(["```console", f"$ sparsedial {command}", _outputs()[command], "```"])


def fitted_page() -> str:
    """The section of docs/laws.md."""
    head = "\n".join(["$ head -3 runs.csv", *TABLE.read_text().splitlines()[:3]])
    return PAGE.format(head=head, fit=_console(FIT), predict=_console(PREDICT))


def planned() -> str:
    """The commands of docs/planning.md: the fit without its output, and the plan by its law."""
    answer = _outputs()[PLAN].partition("\nby ")[0]
    return "\n".join(["```console", f"$ sparsedial {FIT}", "…", f"$ sparsedial {PLAN}", answer, "…", "```"])
