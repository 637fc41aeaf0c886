"""What an engine preset's TOML may hold; pydantic lives here and not in the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from costsim.ops.listed import PLACES, SIZES, unknown_factors


class Settings(BaseModel):
    """Flags and overheads; meanings as in `costsim.engine.settings.EngineSettings`."""

    model_config = ConfigDict(extra="forbid")

    host_step_s: float | None = Field(None, ge=0, le=1)
    host_request_s: float | None = Field(None, ge=0, le=1)
    host_layer_curve: tuple[tuple[float, float], ...] | None = None
    packed_copies: float | None = Field(None, ge=0, le=10)
    cuda_graphs: bool | None = None
    kernel_launch_s: float | None = Field(None, ge=0, le=1)
    chunked_prefill: bool | None = None
    max_num_batched_tokens: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Field(None, ge=1)
    memory_utilization: float | None = Field(None, gt=0, le=1)
    memory_rule: Literal["total", "static", "free"] | None = None
    async_scheduling: bool | None = None
    sync_step_s: float | None = Field(None, ge=0, le=1)
    sync_request_s: float | None = Field(None, ge=0, le=1)
    prefix_caching: bool | None = None
    reserve_bytes: float | None = Field(None, ge=0)
    kv_block_tokens: int | None = Field(None, ge=1)
    overlap_communication: float | None = Field(None, ge=0, le=1)
    prefix_hit_share: float | None = Field(None, ge=0, lt=1)
    prefill_interference: float | None = Field(None, ge=0)
    context_spread: float | None = Field(None, ge=1)
    speculation: str | None = None
    routing: str | None = None
    lora_rank: int | None = Field(None, ge=0, le=1024)
    lora_adapters: int | None = Field(None, ge=0, le=100_000)
    weight_offload_share: float | None = Field(None, ge=0, le=0.99)
    kv_offload_share: float | None = Field(None, ge=0, le=0.99)
    kernel_time_factor: float | None = Field(None, gt=0.1, le=10)
    kernel_time_factor_fp4: float | None = Field(None, gt=0.1, le=10)
    layer_gap_s: float | None = Field(None, ge=0, le=1e-2)
    expert_gap_s: float | None = Field(None, ge=0, le=1e-2)
    exchange_gap_s: float | None = Field(None, ge=0, le=1e-2)
    parallel_shared_experts: bool | None = None
    prompt_latent_s: float | None = Field(None, ge=0, le=0.1)
    draft_host_s: float | None = Field(None, ge=0, le=1)
    draft_request_s: float | None = Field(None, ge=0, le=1)
    poll_steps: int | None = Field(None, ge=1)
    split_prompts: bool | None = None
    hold_steps: int | None = Field(None, ge=0)
    hold_share: float | None = Field(None, ge=0, le=1)
    rank_hold_steps: int | None = Field(None, ge=0)
    frontend_s: float | None = Field(None, ge=0, le=10)
    tokenize_s: float | None = Field(None, ge=0, le=1e-3)
    log_error_tpot: float | None = Field(None, ge=0, le=3)
    log_error_ttft: float | None = Field(None, ge=0, le=3)
    log_error_pools_tpot: float | None = Field(None, ge=0, le=3)
    log_error_pools_ttft: float | None = Field(None, ge=0, le=3)
    log_error_drafting: float | None = Field(None, ge=0, le=3)


class Gemm(BaseModel):
    """Rows, columns and inner size, in the names of `costsim.ops.listed.SIZES`."""

    model_config = ConfigDict(extra="forbid")

    m: str
    n: str
    k: str


class Operator(BaseModel):
    """One operator of an engine that runs others than those of `costsim.ops`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    where: Literal[*PLACES]  # type: ignore[valid-type]
    calls: float = Field(1.0, gt=0, le=1000)
    gemm: Gemm | None = None
    kind: str = ""
    bytes: str | None = None

    @model_validator(mode="after")
    def _one_shape_of_known_sizes(self) -> Operator:
        if (self.gemm is None) == (self.bytes is None):
            raise ValueError(f"operator '{self.name}': give either gemm or bytes")
        given = [self.bytes] if self.gemm is None else list(self.gemm.model_dump().values())
        wrong = sorted({f for text in given if text is not None for f in unknown_factors(text)})
        if wrong:
            raise ValueError(f"operator '{self.name}': unknown size {', '.join(wrong)}; known: "
                             f"{', '.join(SIZES)}")
        return self


class Limit(BaseModel):
    """Limits of a step on accelerators with so much memory, or whose profile's name starts so."""

    model_config = ConfigDict(extra="forbid")

    memory_from_bytes: float = Field(0.0, ge=0)
    memory_below_bytes: float = Field(0.0, ge=0)
    accelerators: list[str] = []
    max_num_batched_tokens: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Field(None, ge=1)
    source: str


class Preset(BaseModel):
    """One engine of one version.

    ``extends`` names another preset: what is not given here is taken from there.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    version: str
    settings: Settings
    sources: dict[str, str]
    extends: str = ""
    kernels: str = ""
    replaces: list[str] = []
    operators: list[Operator] = []
    limits: list[Limit] = []

    @model_validator(mode="after")
    def _every_setting_has_a_source(self) -> Preset:
        given = {k for k, v in self.settings.model_dump().items() if v is not None}
        missing = sorted(given - set(self.sources))
        if missing:
            raise ValueError(f"no source for {', '.join(missing)} under [sources]")
        both = sorted({each.name for each in self.operators} & set(self.replaces))
        if both:
            raise ValueError(f"{', '.join(both)}: listed and replaced; give it another name")
        return self
