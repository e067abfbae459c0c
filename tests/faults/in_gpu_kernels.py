"""Faults of the kernels of a GPU, found in Triton's interpreter or by their record."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="a norm's gradient leaves out what passed beside it",
        file="kernels/triton_norm.py",
        line="        if PASSED:",
        becomes="        if False:",
        tests="tests/kernels/test_fused.py",
    ),
    Fault(
        what="heads are rotated back by the forward pass's angles",
        file="kernels/triton_heads.py",
        line="return low * cos_low + high * sin_high, high * cos_high + low * sin_low",
        becomes="return low * cos_low + high * sin_low, high * cos_high + low * sin_high",
        tests="tests/kernels/test_fused.py",
    ),
    Fault(
        what="a norm over all heads takes the mean of a head's slopes alone",
        file="kernels/triton_heads.py",
        line="tl.store(along + token * 2 + which, total * scale / (own * 2 * half), mask=known)",
        becomes="tl.store(along + token * 2 + which, total * scale / (2 * half), mask=known)",
        tests="tests/kernels/test_fused.py",
    ),
    Fault(
        what="the router's kernel chooses groups by their largest score alone",
        file="kernels/triton_router.py",
        line="            sum_of_best += tl.max(",
        becomes="            sum_of_best += 0 * tl.max(",
        tests="tests/kernels/test_fused.py",
    ),
    Fault(
        what="the router's kernel counts choices that top-p leaves out",
        file="kernels/triton_router.py",
        line="own = tl.sum(tl.where((choice == k) & stays, experts_of + 1, 0), 1) - 1",
        becomes="own = tl.sum(tl.where(choice == k, experts_of + 1, 0), 1) - 1",
        tests="tests/kernels/test_fused.py",
    ),
    Fault(
        what="the router's kernel leaves the z-loss out of the gradient",
        file="kernels/triton_router.py",
        line="    slope += soft *",
        becomes="    slope += 0 * soft *",
        tests="tests/kernels/test_fused.py",
    ),
    Fault(
        what="the plan by kernels lets every token visit its first expert alone",
        file="kernels/triton_plan.py",
        line="visits = tl.load(visited + row // top_k, mask=row < rows, other=0)",
        becomes="visits = 1",
        tests="tests/kernels/test_triton.py",
    ),
    Fault(
        what="a descriptor reads an expert's columns as another's",
        file="kernels/triton_sparse.py",
        line="w.load([expert * columns_size + first_column, first_depth])",
        becomes="w.load([first_column, first_depth])",
        tests="tests/kernels/test_triton.py",
    ),
    Fault(
        what="an AMD GPU is taken for one of NVIDIA's",
        file="kernels/triton_tiles.py",
        line="None if torch.version.hip else",
        becomes="None if False else",
        tests="tests/kernels/test_triton.py",
    ),
    Fault(
        what="Muon's stacked matrices move by another's update",
        file="training/muon_together.py",
        line="found[index] = update if",
        becomes="found[alike[0]] = found[index] = update if",
        tests="tests/training/test_optimizer.py",
    ),
    Fault(
        what="memory that this process has reserved counts as another's",
        file="runs/card_memory.py",
        line="max(0, held - free - reserved)",
        becomes="max(0, held - free)",
        tests="tests/runs/test_card_memory.py",
    ),
    Fault(
        what="what scoring launches is not compiled before a run",
        file="runs/ahead.py",
        line="    counting_scorer(model, recipe.dtype).losses_on_device(windows_WS1, recipe.context)",
        becomes="    del windows_WS1",
        tests="tests/runs/test_ahead.py",
    ),
    Fault(
        what="backward passes compile their kernels one after the other",
        file="kernels/triton_launch.py",
        line="entered.run(kernel.warmup, *given, grid=grid, **named)",
        becomes="kernel.warmup(*given, grid=grid, **named)",
        tests="tests/runs/test_ahead.py",
    ),
    Fault(
        what="open sides of a grid compile in their runs",
        file="sweep/local_lab.py",
        line="compile_ahead(nearby_shapes(layout), recipe",
        becomes="compile_ahead(map(layout.shape, layout.cells), recipe",
        tests="tests/sweep/test_at_once.py",
    ),
)
