"""The command line that starts a chosen layout in vLLM, SGLang or TensorRT-LLM, and its YAML."""

from __future__ import annotations

import json
import re
import shlex

from costsim.engine.deployment import Deployment
from costsim.engine.weights import is_moe
from costsim.errors import unknown_name
from costsim.planning.plan_points import Candidate

ENGINES = ("vllm", "sglang", "tensorrt_llm")
_IMAGES = {
    "vllm": "vllm/vllm-openai:latest",
    "sglang": "lmsysorg/sglang:latest",
    "tensorrt_llm": "nvcr.io/nvidia/tensorrt-llm/release:latest",
}


def engine_command(candidate: Candidate, engine: str = "vllm") -> str:
    """Return the command that starts one replica.

    Args:
        candidate: layout, precision and batch limit.
        engine: one of `ENGINES`.

    The flags are those of vLLM 0.19, SGLang 0.5 and TensorRT-LLM 1.0 (``trtllm-serve``). A model
    is named as costsim names it, to be replaced by the checkpoint's path.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    build = {"vllm": _vllm, "sglang": _sglang, "tensorrt_llm": _tensorrt}[engine]
    return shlex.join(build(candidate))


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


def _vllm(candidate: Candidate) -> list[str]:
    d = candidate.deployment
    at, s = d.layout, d.settings
    words = ["vllm", "serve", d.model.name, "--tensor-parallel-size", str(at.tp)]
    words += ["--pipeline-parallel-size", str(at.pp)] if at.pp > 1 else []
    words += ["--data-parallel-size", str(at.dp)] if at.dp > 1 else []
    words += ["--enable-expert-parallel"] if at.ep > 1 else []
    words += ["--decode-context-parallel-size", str(at.cp)] if at.cp > 1 else []
    words += ["--max-num-seqs", str(_seqs(candidate))]
    words += ["--max-num-batched-tokens", str(s.max_num_batched_tokens)]
    words += ["--gpu-memory-utilization", f"{s.memory_utilization:g}"]
    words += ["--block-size", str(s.kv_block_tokens), "--kv-cache-dtype", _kv(d, "fp8", "auto")]
    words += [] if s.prefix_hit_share else ["--no-enable-prefix-caching"]
    words += _vllm_quantisation(d)
    if s.speculation is not None:
        spoken = {"method": s.speculation.method,
                  "num_speculative_tokens": s.speculation.draft_tokens}  # fmt: skip
        words += ["--speculative-config", json.dumps(spoken)]
    if candidate.role == "disaggregated":
        words += ["--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector",
                                                      "kv_role": "kv_both"})]  # fmt: skip
    return words


def _vllm_quantisation(deployment: Deployment) -> list[str]:
    weights = deployment.precision.experts if is_moe(deployment.model) else deployment.precision.ffn
    made = deployment.model.quantisation
    if weights == "fp8" and made.ffn == "bf16" and made.experts == "bf16":
        return ["--quantization", "fp8"]
    return []


def _sglang(candidate: Candidate) -> list[str]:
    d = candidate.deployment
    at, s = d.layout, d.settings
    words = ["python", "-m", "sglang.launch_server", "--model-path", d.model.name]
    # SGLang counts attention data parallelism inside its tensor-parallel group.
    words += ["--tensor-parallel-size", str(at.tp * at.dp)]
    words += ["--pipeline-parallel-size", str(at.pp)] if at.pp > 1 else []
    words += ["--data-parallel-size", str(at.dp), "--enable-dp-attention"] if at.dp > 1 else []
    words += ["--expert-parallel-size", str(at.ep)] if at.ep > 1 else []
    words += ["--max-running-requests", str(_seqs(candidate) * at.dp)]
    words += ["--chunked-prefill-size", str(s.max_num_batched_tokens)]
    words += ["--mem-fraction-static", f"{s.memory_utilization:g}"]
    words += ["--page-size", str(s.kv_block_tokens)]
    words += ["--kv-cache-dtype", _kv(d, "fp8_e4m3", "auto")]
    words += [] if s.prefix_hit_share else ["--disable-radix-cache"]
    words += _vllm_quantisation(d)
    return words


def _tensorrt(candidate: Candidate) -> list[str]:
    d = candidate.deployment
    at, s = d.layout, d.settings
    words = ["trtllm-serve", "serve", d.model.name, "--tp_size", str(at.tp * at.dp)]
    words += ["--pp_size", str(at.pp)] if at.pp > 1 else []
    words += ["--ep_size", str(at.ep)] if at.ep > 1 else []
    words += ["--max_batch_size", str(_seqs(candidate))]
    words += ["--max_num_tokens", str(s.max_num_batched_tokens)]
    words += ["--kv_cache_free_gpu_memory_fraction", f"{s.memory_utilization:g}"]
    return words


def _kv(deployment: Deployment, fp8: str, otherwise: str) -> str:
    return fp8 if deployment.precision.kv == "fp8" else otherwise


def kubernetes_yaml(candidate: Candidate, replicas: int, engine: str = "vllm") -> str:
    """Return a Kubernetes Deployment and Service (two Deployments where disaggregated, with the
    role labels that llm-d's router reads).

    Args:
        candidate: what to run.
        replicas: of it (units, where disaggregated).
        engine: one of `ENGINES`.
    """
    name = re.sub(r"[^a-z0-9]+", "-", candidate.deployment.model.name.lower()).strip("-")
    if candidate.role == "both":
        parts = [_deployment(candidate, name, replicas, engine, "both")]
    else:
        parts = [
            _deployment(candidate, f"{name}-prefill", replicas * candidate.prefill, engine,
                        "prefill"),
            _deployment(candidate, f"{name}-decode", replicas * candidate.decode, engine, "decode"),
        ]  # fmt: skip
    return "---\n".join([*parts, _service(name)])


def _deployment(c: Candidate, name: str, replicas: int, engine: str, role: str) -> str:
    words = shlex.split(engine_command(c, engine))
    chips = int(c.deployment.accelerators)
    resource = "amd.com/gpu" if c.deployment.hardware.vendor.upper() == "AMD" else "nvidia.com/gpu"
    label = name.removesuffix("-prefill").removesuffix("-decode")
    arguments = "\n".join(f"            - {json.dumps(word)}" for word in words[1:])
    return f"""apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {label}, "llm-d.ai/role": {role}}}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {label}, "llm-d.ai/role": {role}}}
  template:
    metadata:
      labels: {{app: {label}, "llm-d.ai/role": {role}, "llm-d.ai/inferenceServing": "true"}}
    spec:
      containers:
        - name: engine
          image: {_IMAGES[engine]}
          command: [{json.dumps(words[0])}]
          args:
{arguments}
          ports: [{{containerPort: 8000}}]
          resources:
            limits: {{{resource}: {chips}}}
"""


def _service(name: str) -> str:
    return f"""apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 8000}}]
"""
