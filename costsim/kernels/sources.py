"""Measurements from files: the project's CSV, AITER's tables, profiles of other simulators."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.plausible import check_on
from costsim.kernels.readers.aiter import aiter_files, kind_of, read_aiter
from costsim.kernels.readers.llmservingsim import read_llmservingsim
from costsim.kernels.readers.vidur import read_vidur_all_reduce, read_vidur_mlp
from costsim.kernels.table import KernelTable, read_csv
from costsim.loading import read_text


def read_source(
    source: Path, hardware: Hardware, model: Any = None, tp: int = 1
) -> list[KernelTable]:
    """Return the kernel tables of a file or a folder, checked against the hardware's rates.

    Args:
        source: a CSV file (the project's format, Vidur's, or one of AITER's), a folder of them, a
            checkout of AITER, or a folder of LLMServingSim (``profile_tp1_dense.csv`` …).
        hardware: the rows were measured on.
        model, tp: that LLMServingSim profiled; its files hold no sizes.

    Raises:
        InputError: nothing readable, or rows that cannot be true.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    found = (_folder(source, hardware, model, tp) if source.is_dir()
             else _file(source, hardware, hardware.name))
    return [check_on(table, hardware) for table in found]


def _folder(folder: Path, hardware: Hardware, model: Any, tp: int) -> list[KernelTable]:
    if any(re.fullmatch(r"profile_tp\d+_dense\.csv", p.name) for p in folder.iterdir()):
        if model is None:
            raise InputError(f"{folder}: an LLMServingSim profile holds no sizes; name the model "
                             "(--model) and the tensor-parallel degree (--tp)")
        return read_llmservingsim(folder, tp, model)
    tuned = aiter_files(folder)
    if tuned:
        return read_aiter(tuned, hardware)
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise InputError(f"{folder}: holds no CSV file")
    return [table for path in files for table in _file(path, hardware)]


def _file(path: Path, hardware: Hardware, device: str = "") -> list[KernelTable]:
    head = read_text(path).split("\n", 1)[0]
    if kind_of(head):
        return read_aiter([path], hardware)
    if "time_stats.all_reduce." in head:
        return read_vidur_all_reduce(path, device)
    if "time_stats." in head:
        return read_vidur_mlp(path, device)
    return read_csv(path)
