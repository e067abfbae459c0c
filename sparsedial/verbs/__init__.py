"""A folder for each command: its function, its settings and its parts. What several share lies beside them."""

from __future__ import annotations

from sparsedial.verbs.verb import Verb

VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            name="study",
            settings="StudySettings",
            summary="find the best sparsity on your text and this machine",
            examples=(
                "sparsedial study my_text/ --time 30m --out runs/mine",
                "sparsedial study my_text/ --time 1h30m --tokenizer bpe:4096 --dry-run",
                "sparsedial study my_text/ --time 1h --probes 8% --out runs/probed",
                "sparsedial study my_text/ --time 1h --select reference-loss --keep 1,.5,.25 --out runs/both",
                "sparsedial study my_text/ --time 2h --on join --out runs/mine",
                "sparsedial study --status --out runs/mine",
            ),
        ),
        Verb(
            name="join",
            settings="JoinSettings",
            summary="train runs of a study that runs on another machine",
            examples=(
                "sparsedial join /shared/runs/mine",
                "sparsedial join /shared/runs/mine --workers 1 --name node7",
            ),
        ),
        Verb(
            name="count",
            settings="CountSettings",
            summary="count the parameters, FLOPs and bytes of a model",
            examples=(
                "sparsedial count deepseek-v3 --context 8192",
                "sparsedial count runs/mine/plan.json --json",
            ),
        ),
        Verb(
            name="fit",
            settings="FitSettings",
            summary="fit a scaling law to a table of runs",
            examples=(
                "sparsedial fit runs/mine --form chinchilla,chinchilla_sparsity",
                "sparsedial fit runs.csv --columns loss=final_loss,tokens=D --where 'step==250000' --out law.json",
            ),
        ),
        Verb(
            name="profile",
            settings="ProfileSettings",
            summary="measure this machine: seconds, joules and bytes of a training step",
            examples=(
                "sparsedial profile --time 2m --out profile.json",
                "sparsedial profile --threads 1 --context 1024 --widths 64,128,256",
            ),
        ),
        Verb(
            name="plan",
            settings="PlanSettings",
            summary="find the best shape for a budget in any currency",
            examples=(
                "sparsedial plan --flops 1e21 --max-total-parameters 30B",
                "sparsedial plan --dollars 2500 --price 2.5 --device h100 --devices 8",
                "sparsedial plan --seconds 10d --law runs/mine --out plan.json",
            ),
        ),
        Verb(
            name="dial",
            settings="DialSettings",
            summary="open a page that shows loss and cost as you turn the sparsity, or measure a checkpoint's settings",
            examples=(
                "sparsedial dial --open",
                "sparsedial dial runs/mine --port 0",
                "sparsedial dial runs/model/checkpoint --measure --text my_text/",
            ),
        ),
        Verb(
            name="select",
            settings="SelectSettings",
            summary="leave out of a text what does not matter, and measure what that did",
            examples=(
                "sparsedial select my_text/ --out kept",
                "sparsedial select my_text/ --near 0.7 --keep 0.5 --out half",
                "sparsedial select my_text/ --keep 0.5 --keep-by domain --score reference-loss --out scored",
                "sparsedial select my_text/ --keep 0.5 --quality gopher --measure --time 30m --out better",
            ),
        ),
        Verb(
            name="train",
            settings="TrainSettings",
            summary="train one model",
            examples=(
                "sparsedial train runs/mine/plan.json --text my_text/ --tokens 20M --out runs/model",
                "sparsedial train qwen3-0.6b --shape.layers 4 --tokens 1M --recipe.learning_rate 1e-3 --dry-run",
                "sparsedial train runs/model/checkpoint --text my_text/ --tokens 2M --dial 2,4,8 --out runs/tuned",
            ),
        ),
        Verb(
            name="evaluate",
            settings="EvaluateSettings",
            summary="score checkpoints on a text, or on questions, mathematics and reading",
            examples=(
                "sparsedial evaluate runs/model/checkpoint --text other.txt",
                "sparsedial evaluate runs/model/checkpoint --tasks arc_easy,squad --limit 50",
                "sparsedial evaluate runs/first/checkpoint runs/model/checkpoint --tasks reading",
            ),
        ),
        Verb(
            name="prune",
            settings="PruneSettings",
            summary="turn off the experts, layers, neurons or weights that matter least, and measure what that does",
            examples=(
                "sparsedial prune runs/model/checkpoint --keep 0.5 --calibrate my_text/ --out runs/smaller",
                "sparsedial prune runs/model/checkpoint --keep 0.75 --calibrate code/ --also prose/ --out runs/code",
                "sparsedial prune runs/model/checkpoint --fix-setting k=2 --out runs/at_k2",
                "sparsedial prune llama/ --method activation --keep 0.75 --calibrate my_text/ --out llama-smaller",
                "sparsedial prune runs/model/checkpoint --keep .5 --calibrate my_text/ --recover 20M --out runs/back",
                "sparsedial prune llama/ --compare activation,wanda --strengths .5 --calibrate my_text/ --out tried",
                "sparsedial prune llama/ --method activation --max-loss-increase 2% --calibrate my_text/ --out near",
                "sparsedial prune llama/ --split-experts 24 --calibrate my_text/ --out llama-experts",
                "sparsedial prune llama-experts/ --join-experts --out llama-again",
            ),
        ),
        Verb(
            name="generate",
            settings="GenerateSettings",
            summary="continue a prompt with a checkpoint",
            examples=(
                "sparsedial generate runs/model/checkpoint 'Once upon' --tokens 100",
                "sparsedial generate runs/model/checkpoint 'Once upon' --temperature 0 --json",
                "sparsedial generate runs/model/checkpoint 'Once upon' --setting k=2",
                "sparsedial generate runs/model/checkpoint 'Once upon' --max-loss-increase 1%",
            ),
            streams=True,
        ),
        Verb(
            name="serve",
            settings="ServeSettings",
            summary="serve a checkpoint by OpenAI's API; each request chooses its setting",
            examples=(
                "sparsedial serve runs/model/checkpoint",
                "sparsedial serve runs/model/checkpoint --open --port 0",
                "sparsedial serve runs/model/checkpoint --setting k=2 --slots 16 --context 2048",
                "sparsedial serve runs/model/checkpoint --host 0.0.0.0 --dry-run",
            ),
        ),
    )
}
