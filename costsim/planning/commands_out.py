"""The command lines that start a chosen layout in vLLM, SGLang or TensorRT-LLM."""

from __future__ import annotations

import json
import re
import shlex

from costsim.engine.deployment import Deployment
from costsim.errors import unknown_name
from costsim.models.architecture import is_moe
from costsim.planning.plan_points import Candidate

ENGINES = ("vllm", "sglang", "tensorrt_llm")
ROLES = ("both", "prefill", "decode")
TENSORRT_OPTIONS = "tensorrt_llm.yaml"


def checkpoint(deployment: Deployment) -> str:
    """Return the checkpoint's name on Hugging Face, or the model's name where none is known."""
    found = re.match(r"config\.json of (\S+/\S+) on Hugging Face", deployment.model.source)
    return found[1] if found else deployment.model.name


def engines_of(candidate: Candidate) -> tuple[str, ...]:
    """Return the engines that run on a candidate's hardware: TensorRT-LLM on NVIDIA's alone."""
    nvidia = candidate.deployment.hardware.vendor.upper() == "NVIDIA"
    return ENGINES if nvidia else ENGINES[:2]


def roles_of(candidate: Candidate) -> tuple[str, ...]:
    """Return the roles of the processes that a replica or unit is made of."""
    return ("both",) if candidate.role == "both" else ("prefill", "decode")


def engine_command(candidate: Candidate, engine: str = "vllm", role: str = "both") -> str:
    """Return the command that starts one replica.

    Args:
        candidate: layout, precision and batch limit.
        engine: one of `ENGINES`.
        role: one of `ROLES`; that of the process in a disaggregated unit.

    The flags are those of vLLM 0.19, SGLang 0.5 and TensorRT-LLM 1.2 (``trtllm-serve``, whose
    further options are in the file of `tensorrt_options`).
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if role not in ROLES:
        raise unknown_name("role", role, ROLES)
    build = {"vllm": _vllm, "sglang": _sglang, "tensorrt_llm": _tensorrt}[engine]
    return shlex.join(build(candidate, role))


def broken_line(line: str, width: int = 76) -> list[str]:
    """Return a command in lines no longer than a width, each but the last ended by a backslash."""
    flags: list[str] = []  # each with its values
    for word in (shlex.quote(w) for w in shlex.split(line)):
        if flags and not word.startswith("--"):
            flags[-1] += f" {word}"
        else:
            flags.append(word)
    parts: list[str] = []
    for flag in flags:
        if parts and len(parts[-1]) + len(flag) + 3 <= width:
            parts[-1] += f" {flag}"
        else:
            parts.append(flag if not parts else f"  {flag}")
    return [f"{part} \\" for part in parts[:-1]] + parts[-1:]


def _seqs(candidate: Candidate) -> int:
    """Requests at once of one data-parallel rank."""
    return max(1, int(candidate.batch_limit / int(candidate.deployment.layout.dp)))


def _vllm(candidate: Candidate, role: str) -> list[str]:
    d = candidate.deployment
    at, s = d.layout, d.settings
    words = ["vllm", "serve", checkpoint(d), "--served-model-name", d.model.name]
    words += ["--tensor-parallel-size", str(at.tp)]
    words += ["--pipeline-parallel-size", str(at.pp)] if at.pp > 1 else []
    words += ["--data-parallel-size", str(at.dp)] if at.dp > 1 else []
    words += ["--enable-expert-parallel"] if at.ep > 1 else []
    words += ["--decode-context-parallel-size", str(at.cp)] if at.cp > 1 else []
    words += ["--max-num-seqs", str(_seqs(candidate))] if role != "prefill" else []
    words += ["--max-num-batched-tokens", str(s.max_num_batched_tokens)]
    words += ["--gpu-memory-utilization", f"{s.memory_utilization:g}"]
    words += ["--block-size", str(s.kv_block_tokens), "--kv-cache-dtype", _kv(d, "fp8", "auto")]
    words += [] if s.prefix_hit_share else ["--no-enable-prefix-caching"]
    words += _quantisation(d)
    if s.speculation is not None:
        spoken = {"method": s.speculation.method,
                  "num_speculative_tokens": s.speculation.draft_tokens}  # fmt: skip
        words += ["--speculative-config", json.dumps(spoken)]
    if role != "both":
        words += ["--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector",
                                                      "kv_role": "kv_both"})]  # fmt: skip
    return words


def _quantisation(deployment: Deployment) -> list[str]:
    weights = deployment.precision.experts if is_moe(deployment.model) else deployment.precision.ffn
    made = deployment.model.quantisation
    if weights == "fp8" and made.ffn == "bf16" and made.experts == "bf16":
        return ["--quantization", "fp8"]
    return []


def _sglang(candidate: Candidate, role: str) -> list[str]:
    d = candidate.deployment
    at, s = d.layout, d.settings
    words = ["python", "-m", "sglang.launch_server", "--model-path", checkpoint(d)]
    words += ["--served-model-name", d.model.name, "--host", "0.0.0.0", "--port", "8000"]
    # SGLang counts attention data parallelism inside its tensor-parallel group.
    words += ["--tensor-parallel-size", str(at.tp * at.dp)]
    words += ["--pipeline-parallel-size", str(at.pp)] if at.pp > 1 else []
    words += ["--data-parallel-size", str(at.dp), "--enable-dp-attention"] if at.dp > 1 else []
    words += ["--expert-parallel-size", str(at.ep)] if at.ep > 1 else []
    words += ["--max-running-requests", str(_seqs(candidate) * at.dp)] if role != "prefill" else []
    words += ["--chunked-prefill-size", str(s.max_num_batched_tokens)]
    words += ["--mem-fraction-static", f"{s.memory_utilization:g}"]
    words += ["--page-size", str(s.kv_block_tokens)]
    words += ["--kv-cache-dtype", _kv(d, "fp8_e4m3", "auto")]
    words += [] if s.prefix_hit_share else ["--disable-radix-cache"]
    words += _quantisation(d)
    if role != "both":
        words += ["--disaggregation-mode", role, "--disaggregation-transfer-backend", "nixl"]
    return words


def _tensorrt(candidate: Candidate, role: str) -> list[str]:
    d = candidate.deployment
    at, s = d.layout, d.settings
    words = ["trtllm-serve", checkpoint(d), "--host", "0.0.0.0", "--port", "8000"]
    words += ["--tp_size", str(at.tp * at.dp)]
    words += ["--pp_size", str(at.pp)] if at.pp > 1 else []
    words += ["--ep_size", str(at.ep)] if at.ep > 1 else []
    words += ["--max_batch_size", str(_seqs(candidate))]
    words += ["--max_num_tokens", str(s.max_num_batched_tokens)]
    words += ["--kv_cache_free_gpu_memory_fraction", f"{s.memory_utilization:g}"]
    prefix = "" if role == "both" else f"{role}_"
    return [*words, "--extra_llm_api_options", prefix + TENSORRT_OPTIONS]


def tensorrt_options(candidate: Candidate, role: str = "both") -> str:
    """Return the YAML that ``trtllm-serve --extra_llm_api_options`` reads.

    A checkpoint for TensorRT-LLM carries its quantisation: weights of fp8 need a checkpoint of fp8.

    Args:
        candidate, role: as in `engine_command`.
    """
    d = candidate.deployment
    lines = ["kv_cache_config:", f"  dtype: {_kv(d, 'fp8', 'auto')}",
             f"  enable_block_reuse: {str(d.settings.prefix_hit_share > 0).lower()}",
             f"enable_chunked_prefill: {str(d.settings.chunked_prefill).lower()}"]  # fmt: skip
    lines += ["enable_attention_dp: true"] if d.layout.dp > 1 else []
    if role != "both":
        lines += ["cache_transceiver_config:", "  backend: NIXL"]
    if role == "prefill":
        lines.append("disable_overlap_scheduler: true")
    return "\n".join(lines) + "\n"


def _kv(deployment: Deployment, fp8: str, otherwise: str) -> str:
    return fp8 if deployment.precision.kv == "fp8" else otherwise


def start_script(candidate: Candidate) -> str:
    """Return a shell script with every engine's commands, those of vLLM active.

    Args:
        candidate: what to start.
    """
    lines = ["#!/bin/sh", "# Starts one replica. Other engines are commented out."]
    for engine in engines_of(candidate):
        for role in roles_of(candidate):
            lines.append(f"\n# {engine}" + ("" if role == "both" else f", {role}"))
            if engine == "tensorrt_llm":
                name = ("" if role == "both" else f"{role}_") + TENSORRT_OPTIONS
                told = tensorrt_options(candidate, role).splitlines()
                lines += [f"# cat > {name} <<'END'", *(f"# {line}" for line in told), "# END"]
            mark = "" if engine == "vllm" else "# "
            lines += [mark + part for part in broken_line(engine_command(candidate, engine, role))]
    return "\n".join(lines) + "\n"
