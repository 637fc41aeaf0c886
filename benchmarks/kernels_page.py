"""Writes docs/kernels.md: how kernels are priced, and how well that holds.

Run with ``python benchmarks/kernels_page.py``; every figure comes from the calibrations that ship
(and, where ../shared/data lies beside the checkout, from independent measurements).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from costsim.files import write_atomically
from costsim.hardware.loader import list_hardware, load_hardware
from costsim.kernels.build_silicon import SYSTEMS
from costsim.kernels.readers.llmservingsim import read_llmservingsim
from costsim.kernels.readers.modules import read_modules
from costsim.kernels.readers.vidur import read_vidur_all_reduce, read_vidur_mlp
from costsim.kernels.store import load_calibration, read_calibration, shipped_calibrations
from costsim.models.loader import load_model
from costsim.validation.kernels import TARGETS, KernelErrors, held_out_rows, validate_kernels
from costsim.validation.modules import validate_modules

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = Path(__file__).with_name("kernels_page.md")
Row = Mapping[str, Any]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(value: float) -> str:
    """Return a share in per cent."""
    return f"{100 * value:.1f} %"


def by_operator(found: Mapping[str, list[Row]]) -> str:
    """Return, for each accelerator and operator, the figures over its kernels."""
    rows = []
    for name, kernels in found.items():
        for operator in TARGETS:
            some = [k for k in kernels if k["operator"] == operator]
            if not some:
                continue
            rows.append((name, operator, str(len(some)),
                         str(sum(int(k["rows"]) for k in some)),
                         percent(np.median([k["median"] for k in some])),
                         percent(max(k["median"] for k in some)),
                         percent(np.median([k["p90"] for k in some])),
                         f"{sum(bool(k['reached']) for k in some)}/{len(some)}"))
    return table(("accelerator", "operator", "kernels", "rows", "median error", "worst kernel's",
                  "p90", "within target"), rows)


def missed(found: Mapping[str, list[Row]]) -> str:
    """Return the kernels that miss a target, with the figures."""
    rows = [(name, k["operator"], k["variant"], k["engine"], percent(k["median"]),
             percent(k["p90"]), f"{percent(k['target'][0])}, {percent(k['target'][1])}")
            for name, kernels in found.items() for k in kernels if k["reached"] is False]
    return table(("accelerator", "operator", "kernel", "engine", "median", "p90",
                  "target (median, p90)"), rows)


def blocks(found: Mapping[str, list[Row]]) -> str:
    """Return, for each operator and held-out block, fit against table and roofline."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for kernels in found.values():
        for k in kernels:
            for name, block in k["blocks"].items():
                groups.setdefault((k["operator"], name), []).append(block)
    rows = []
    for (operator, name), some in sorted(groups.items()):
        figures = [np.median([b[who][0] for b in some]) for who in ("fit", "table", "roofline")]
        tails = [np.median([b[who][1] for b in some]) for who in ("fit", "table", "roofline")]
        wins = [sum(b["fit"][0] <= b[who][0] for b in some) for who in ("table", "roofline")]
        rows.append((operator, name, str(len(some)), *(
            f"{percent(m)} / {percent(t)}" for m, t in zip(figures, tails, strict=True)),
            f"{wins[0]}", f"{wins[1]}"))
    return table(("operator", "held-out block", "kernels", "fit", "table", "roofline",
                  "beats table", "beats roofline"), rows)


def intervals(found: Mapping[str, list[Row]]) -> str:
    """Return the coverage of the 90 % interval, by operator."""
    rows = []
    for operator in TARGETS:
        some = [k for kernels in found.values() for k in kernels if k["operator"] == operator]
        count = [int(k["rows"]) for k in some if k["coverage"] is not None]
        random = [k["coverage"] for k in some if k["coverage"] is not None]
        held = [k["coverage_blocks"] for k in some if k["coverage_blocks"] is not None]
        if random and held:
            rows.append((operator, percent(np.average(random, weights=count)),
                         percent(np.mean(held))))
    return table(("operator", "random rows", "blocks"), rows)


def versions(found: Mapping[str, list[Row]]) -> str:
    """Return how the fit of one software version does on another's rows."""
    rows = [(name, k["operator"], k["variant"], k["engine"], k["version"], other,
             percent(e["median"]), percent(e["p90"]), percent(e["bias"]))
            for name, kernels in found.items() for k in kernels
            for other, e in k["other_versions"].items() if k["operator"] in ("gemm", "moe")]
    return table(("accelerator", "operator", "kernel", "engine", "fitted on", "tested on",
                  "median", "p90", "bias"), rows)


def independent(folder: Path) -> str:
    """Return the shipped calibrations against measurements by other people."""
    if not folder.is_dir():
        return "The independent measurements were not beside the checkout on this run."
    found: list[tuple[str, KernelErrors]] = []
    rtx, a100 = load_hardware("rtx_pro_6000"), load_hardware("a100_sxm_80gb")
    for name, model in (("Llama-3.1-8B", "llama-3.1-8b"),
                        ("Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b")):
        for tp in (1, 2):
            tables = read_llmservingsim(folder / "serving" / f"rtxpro6000-{name}", tp,
                                        load_model(model))
            found += [(f"LLMServingSim, {name}, TP{tp}", e)
                      for e in validate_kernels(tables, load_calibration(rtx), rtx)]
    vidur = [*read_vidur_mlp(folder / "kernels" / "vidur_a100_llama-2-70b_mlp.csv"),
             *read_vidur_all_reduce(folder / "kernels" / "vidur_a100_dgx_all_reduce.csv")]
    found += [("Vidur, A100", e) for e in validate_kernels(vidur, load_calibration(a100), a100)]
    return table(("measured by", "operator", "kernel", "rows", "median", "p90", "bias",
                  "inside the 90 % interval"),
                 [(who, e.operator, e.variant, str(len(e.errors)), percent(e.median),
                   percent(e.p90), percent(e.bias), percent(e.coverage)) for who, e in found])


def layers() -> str:
    """Return whole attention layers of the tables against the sum of their operators."""
    rows = []
    for system, (name, profile) in SYSTEMS.items():
        hardware = load_hardware(profile)
        errors = validate_modules(read_modules(system), load_calibration(hardware), hardware)
        groups: dict[tuple[str, str, str], list[KernelErrors]] = {}
        for e in errors:
            key = (e.operator.removesuffix("_layer"), e.variant.split()[0], e.engine)
            groups.setdefault(key, []).append(e)
        for key, some in sorted(groups.items()):
            pooled = np.concatenate([e.errors for e in some])
            size = np.expm1(np.abs(pooled))
            rows.append((name, *key, str(len(pooled)), percent(np.median(size)),
                         percent(np.quantile(size, 0.9)), percent(np.expm1(np.median(pooled)))))
    return table(("accelerator", "attention", "phase", "engine", "rows", "median", "p90", "bias"),
                 rows)


def provenance(found: Mapping[str, list[Row]]) -> str:
    """Return what each calibration was made from."""
    rows = []
    for name in found:
        about = read_calibration(name).about
        measured = sorted({f"{k['engine']} {k['version']}" for k in found[name]})
        rows.append((name, str(about.get("hardware", "")), about.get("made", ""),
                     ", ".join(measured), "; ".join(about.get("left_out", [])) or "none"))
    return table(("calibration", "profile", "made", "software", "left out (timed with the host)"),
                 rows)


def borrowed() -> str:
    """Return the accelerators that borrow a calibration."""
    rows = []
    for name in list_hardware():
        hardware = load_hardware(name)
        calibration = load_calibration(hardware)
        if calibration.widening > 1.0:
            rows.append((name, hardware.borrowed_calibration, f"{calibration.widening:g}"))
        elif calibration.rest is not None:
            rest = calibration.rest
            rows.append((f"{name}, the rest", rest.name, f"{rest.widening:g}"))
    return table(("accelerator", "borrows from", "error wider by"), rows)


def main() -> None:
    """Write the page."""
    found = {n: held_out_rows(read_calibration(n)) for n in shipped_calibrations()}
    parts = {"by_operator": by_operator(found), "missed": missed(found), "blocks": blocks(found),
             "intervals": intervals(found), "versions": versions(found),
             "provenance": provenance(found), "borrowed": borrowed(),
             "layers": layers(),
             "independent": independent(REPOSITORY.parent / "shared" / "data")}
    text = TEXT.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace("{" + name + "}", part)
    write_atomically(REPOSITORY / "docs" / "kernels.md", text)


if __name__ == "__main__":
    main()
