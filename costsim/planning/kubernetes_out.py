"""Kubernetes manifests of a pool: deployments with llm-d's labels, a service, and its schedule."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from costsim.planning.commands_out import TENSORRT_OPTIONS, engine_command, roles_of
from costsim.planning.commands_out import tensorrt_options as tensorrt_yaml
from costsim.planning.plan_points import Candidate, precision_name

_IMAGES = {
    "vllm": "vllm/vllm-openai:latest",
    "sglang": "lmsysorg/sglang:latest",
    "tensorrt_llm": "nvcr.io/nvidia/tensorrt-llm/release:latest",
}
_AMD_IMAGES = {"vllm": "rocm/vllm:latest"}
_RESOURCES = {"AMD": "amd.com/gpu", "INTEL": "habana.ai/gaudi", "GOOGLE": "google.com/tpu",
              "AWS": "aws.amazon.com/neuron"}  # fmt: skip
_MOST_A_NODE = 8
_RAY = "bash /vllm-workspace/examples/online_serving/multi-node-serving.sh"


def kubernetes_yaml(
    candidate: Candidate, replicas: int, engine: str = "vllm",
    by_hour: Sequence[int] | None = None,
) -> str:
    """Return the manifests of a pool as YAML documents.

    A Deployment (two where disaggregated, with the role labels that llm-d's router reads; a
    LeaderWorkerSet where a replica spans nodes), the model's Service, and where the count changes
    over the day or week a KEDA ScaledObject that follows it.

    Args:
        candidate: what to run.
        replicas: of it at most (units, where disaggregated).
        engine: one of `costsim.planning.commands_out.ENGINES`.
        by_hour: replicas by hour of the day (24) or of the week from Monday (168).
    """
    parts = []
    for role in roles_of(candidate):
        each = {"both": 1, "prefill": candidate.prefill, "decode": candidate.decode}[role]
        parts.append(_workload(candidate, engine, role, replicas * each))
        if engine == "tensorrt_llm":
            parts.append(_options(candidate, role))
        if by_hour is not None and len(set(by_hour)) > 1:
            parts.append(_schedule(candidate, role, [n * each for n in by_hour]))
    return "---\n".join([*parts, _service(candidate)])


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _name(candidate: Candidate, role: str) -> str:
    """Return a name that tells pools of one model apart, at most 63 characters."""
    d = candidate.deployment
    words = [d.model.name, d.hardware.name, str(d.layout), precision_name(d),
             f"b{int(candidate.batch_limit)}", *([] if role == "both" else [role])]  # fmt: skip
    return _plain("-".join(words))[-63:].strip("-")


def _labels(candidate: Candidate, role: str) -> str:
    model = _plain(candidate.deployment.model.name)
    return (f'{{app: {_name(candidate, role)}, llm-d.ai/model: {model}, llm-d.ai/role: {role}, '
            f'llm-d.ai/inference-serving: "true"}}')  # fmt: skip


def _nodes(candidate: Candidate) -> tuple[int, int]:
    """Return the nodes of one process group and the accelerators on each."""
    chips = int(candidate.deployment.accelerators)
    domain = int(np.max(candidate.deployment.hardware.scale_up.domain_size))
    most = max(1, min(_MOST_A_NODE, domain))
    nodes = -(-chips // most)
    return nodes, -(-chips // nodes)


def _workload(c: Candidate, engine: str, role: str, replicas: int) -> str:
    nodes, chips = _nodes(c)
    labels = _labels(c, role)
    if nodes == 1:
        pod = _pod(c, engine, role, chips, shlex.split(engine_command(c, engine, role)), 6)
        return (
            f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {_name(c, role)}\n"
            f"  labels: {labels}\nspec:\n  replicas: {replicas}\n  selector:\n"
            f"    matchLabels: {labels}\n  template:\n    metadata:\n      labels: {labels}\n"
            f"    spec:\n{pod}"
        )
    leader, worker = _several_nodes(c, engine, role)
    return (
        f"apiVersion: leaderworkerset.x-k8s.io/v1\nkind: LeaderWorkerSet\nmetadata:\n"
        f"  name: {_name(c, role)}\n  labels: {labels}\nspec:\n  replicas: {replicas}\n"
        f"  leaderWorkerTemplate:\n    size: {nodes}\n"
        f"    restartPolicy: RecreateGroupOnPodRestart\n    leaderTemplate:\n"
        f"      metadata:\n        labels: {labels}\n      spec:\n"
        f"{_pod(c, engine, role, chips, leader, 8)}"
        f"    workerTemplate:\n      spec:\n{_pod(c, engine, role, chips, worker, 8, False)}"
    )


def _several_nodes(c: Candidate, engine: str, role: str) -> tuple[list[str], list[str]]:
    """Return the commands of the leader and of the other nodes of a replica."""
    line = engine_command(c, engine, role)
    if engine == "vllm":
        start = f"{_RAY} leader --ray_cluster_size=$(LWS_GROUP_SIZE); {line}"
        return (["sh", "-c", start + " --distributed-executor-backend ray"],
                ["sh", "-c", f"{_RAY} worker --ray_address=$(LWS_LEADER_ADDRESS)"])  # fmt: skip
    if engine == "sglang":
        whole = ["sh", "-c", f"{line} --dist-init-addr $(LWS_LEADER_ADDRESS):20000 "
                             "--nnodes $(LWS_GROUP_SIZE) --node-rank $(LWS_WORKER_INDEX)"]
        return whole, whole
    return shlex.split(f"trtllm-llmapi-launch {line}"), ["sleep", "infinity"]


def _pod(c: Candidate, engine: str, role: str, chips: int, words: list[str], indent: int,
         serves: bool = True) -> str:  # fmt: skip
    vendor = c.deployment.hardware.vendor.upper()
    resource = _RESOURCES.get(vendor, "nvidia.com/gpu")
    image = (_IMAGES | (_AMD_IMAGES if vendor == "AMD" else {}))[engine]
    lines = ["containers:", "  - name: engine", f"    image: {image}",
             f"    command: [{json.dumps(words[0])}]", "    args:"]  # fmt: skip
    lines += [f"      - {json.dumps(word)}" for word in words[1:]]
    if role != "both" and engine == "vllm":
        lines += ["    env:", "      - name: VLLM_NIXL_SIDE_CHANNEL_HOST",
                  "        valueFrom: {fieldRef: {fieldPath: status.podIP}}",
                  '      - {name: VLLM_NIXL_SIDE_CHANNEL_PORT, value: "5600"}']  # fmt: skip
    if serves:
        lines += ["    ports: [{containerPort: 8000}]",
                  "    readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10}",
                  "    startupProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10, "
                  "failureThreshold: 180}"]  # fmt: skip
    lines += [f'    resources: {{limits: {{{resource}: "{chips}"}}}}',
              "    volumeMounts:", "      - {name: shm, mountPath: /dev/shm}"]  # fmt: skip
    mounts = engine == "tensorrt_llm"
    lines += ["      - {name: options, mountPath: /options}"] if mounts else []
    lines += ["    workingDir: /options"] if mounts else []
    lines += ["volumes:", "  - name: shm", "    emptyDir: {medium: Memory}"]
    if mounts:
        lines += ["  - name: options", f"    configMap: {{name: {_name(c, role)}-options}}"]
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


def _options(c: Candidate, role: str) -> str:
    file = ("" if role == "both" else f"{role}_") + TENSORRT_OPTIONS
    told = "".join(f"    {line}\n" for line in tensorrt_yaml(c, role).splitlines())
    return (f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {_name(c, role)}-options\ndata:\n"
            f"  {file}: |\n{told}")


def _service(candidate: Candidate) -> str:
    """Return the Service of all pools of a model; requests enter at those that write answers."""
    model = _plain(candidate.deployment.model.name)
    role = "both" if candidate.role == "both" else "decode"
    return (f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {model}\nspec:\n"
            f"  selector: {{llm-d.ai/model: {model}, llm-d.ai/role: {role}}}\n"
            f"  ports: [{{port: 80, targetPort: 8000}}]\n")


def _schedule(c: Candidate, role: str, by_hour: Sequence[int]) -> str:
    """Return a KEDA ScaledObject whose cron triggers follow the plan's hours (UTC)."""
    nodes, _ = _nodes(c)
    kind, version = (("Deployment", "apps/v1") if nodes == 1 else
                     ("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1"))  # fmt: skip
    name = _name(c, role)
    text = (
        f"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata:\n  name: {name}\n"
        f"spec:\n  scaleTargetRef: {{apiVersion: {version}, kind: {kind}, name: {name}}}\n"
        f"  minReplicaCount: {min(by_hour)}\n  maxReplicaCount: {max(by_hour)}\n  triggers:\n"
    )
    for days, start, end, count in runs_of(by_hour):
        text += (f'    - type: cron\n      metadata: {{timezone: Etc/UTC, start: "0 {start} * * '
                 f'{days}", end: "{end} * * {days}", desiredReplicas: "{count}"}}\n')
    return text


def runs_of(by_hour: Sequence[int]) -> list[tuple[str, int, str, int]]:
    """Return runs of hours with one count above the least: days, first hour, cron's end, count.

    Args:
        by_hour: 24 counts of every day, or 168 of a week from Monday; days alike come together,
            numbered as cron does (1 is Monday).
    """
    rows = np.asarray(by_hour, int).reshape(-1, 24)
    least = int(rows.min())
    found: list[tuple[str, int, str, int]] = []
    for row in dict.fromkeys(map(tuple, rows.tolist())):
        same = [str((at + 1) % 7) for at, other in enumerate(rows.tolist()) if tuple(other) == row]
        days = "*" if len(rows) == 1 or len(same) == 7 else ",".join(same)
        changes = [0, *(h for h in range(1, 24) if row[h] != row[h - 1]), 24]
        for start, end in pairwise(changes):
            if row[start] > least:
                found.append((days, start, "59 23" if end == 24 else f"0 {end}", int(row[start])))
    return found
