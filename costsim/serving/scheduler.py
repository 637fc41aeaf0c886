"""How an engine forms its steps: the settings, by name, of the policies that are modelled."""

from __future__ import annotations

from dataclasses import dataclass

from costsim.errors import InputError, unknown_name

POLICIES = {
    "vllm": "one token budget per step shared by decodes and prompt chunks (vLLM V1)",
    "stall_free": "as vllm with a small budget, so that prompts hardly slow decodes (Sarathi)",
    "prefill_first": "steps of whole prompts go before decode steps (vLLM V0, TGI)",
    "orca": "whole prompts join the decode batch; cache is reserved for the longest answer",
    "static": "a batch is formed, and nothing joins or leaves until all of it has finished",
}
STALL_FREE_TOKENS = 512
"""Token budget of Sarathi-Serve for strict latency targets (arXiv:2403.02310, section 5)."""


@dataclass(frozen=True)
class Scheduler:
    """Settings of the scheduler of one replica.

    Args:
        policy: a name in `POLICIES`.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: tokens of a step, decodes and prompt chunks together.
        block_tokens: tokens of a KV cache block.
        watermark: share of the blocks that admission leaves free.
        reserve_full_prompt: admit a prompt only where all of it fits, not only its first chunk.
        long_prompt_tokens: most tokens of one prompt in a step; 0 for no limit.
        order: ``fcfs`` or ``priority`` (lower first; the worst running request is preempted).
        prefix_cache: keep the blocks of finished requests and reuse them by hash.
        max_model_len: most prompt and output tokens of a request; 0 for what the cache holds.
        ahead: the scheduler forms a step when the one before it starts (vLLM's asynchronous
            scheduling), so that a request that arrives during a step misses the next one too.
        step_overhead_s: host time added to each step that is not hidden (async scheduling hides
            most of it).
        request_overhead_s: host time from arrival until the scheduler sees the request.
    """

    policy: str = "vllm"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_tokens: int = 16
    watermark: float = 0.0
    reserve_full_prompt: bool = True
    long_prompt_tokens: int = 0
    order: str = "fcfs"
    prefix_cache: bool = False
    max_model_len: int = 0
    ahead: bool = False
    step_overhead_s: float = 0.0
    request_overhead_s: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise unknown_name("scheduling policy", self.policy, POLICIES)
        if self.order not in ("fcfs", "priority"):
            raise unknown_name("order", self.order, ("fcfs", "priority"))
        for name in ("max_num_seqs", "max_num_batched_tokens", "block_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"scheduler: {name} = {getattr(self, name)}: must be at least 1")
        if self.chunked and self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                f"scheduler: max_num_batched_tokens = {self.max_num_batched_tokens} is below "
                f"max_num_seqs = {self.max_num_seqs}: each running request needs a token a step"
            )
        if not 0 <= self.watermark < 1:
            raise InputError(f"scheduler: watermark = {self.watermark}: must be in [0, 1)")
        if self.step_overhead_s < 0 or self.request_overhead_s < 0 or self.long_prompt_tokens < 0:
            raise InputError("scheduler: overheads and long_prompt_tokens must not be negative")

    @property
    def chunked(self) -> bool:
        """Whether prompts are cut into chunks."""
        return self.policy in ("vllm", "stall_free")

    @property
    def token_budget(self) -> int:
        """Tokens of a step; no limit where prompts are taken whole."""
        if self.policy == "stall_free":
            return max(self.max_num_seqs, min(self.max_num_batched_tokens, STALL_FREE_TOKENS))
        return self.max_num_batched_tokens
