"""What a model's TOML may hold; pydantic checks it and refuses what it does not know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from costsim.dtypes import BYTES_PER_ELEMENT
from costsim.errors import unknown_name
from costsim.models import architecture

Count = Annotated[int, Field(ge=1, le=10**7)]
Natural = Annotated[int, Field(ge=0, le=10**9)]
Weights = Annotated[int, Field(ge=0, le=10**15)]
Text = Annotated[str, Field(max_length=2000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class AttentionTable(_Table):
    """``[layers.attention]``"""

    kind: Literal["full", "sliding", "chunked", "mla", "dsa", "sparse"] = "full"
    heads: Count
    kv_heads: Count = 0
    head_dim: Count
    v_head_dim: Natural = 0
    window: Natural = 0
    q_lora_rank: Natural = 0
    kv_lora_rank: Natural = 0
    rope_head_dim: Natural = 0
    nope_head_dim: Natural = 0
    index_heads: Natural = 0
    index_head_dim: Natural = 0
    index_topk: Natural = 0
    kv_compression: Count = 1
    output_gate: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    shares_kv: bool = False
    k_is_v: bool = False
    cross: bool = False
    output_lora_rank: Natural = 0
    output_groups: Natural = 0
    shares_index: bool = False
    extra_matrices: Annotated[int, Field(ge=-(10**12), le=10**15)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> AttentionTable:
        kv_heads = self.kv_heads or self.heads
        if self.heads % kv_heads:
            raise ValueError(f"{self.heads} heads are not a multiple of {kv_heads} kv_heads")
        if self.kind in ("sliding", "chunked") and not self.window:
            raise ValueError(f"{self.kind} attention needs window >= 1")
        if self.kind in ("mla", "dsa") and not (self.kv_lora_rank and self.v_head_dim):
            raise ValueError(f"{self.kind} needs kv_lora_rank and v_head_dim")
        if self.kind == "dsa" and not self.index_topk:
            raise ValueError("dsa needs index_topk >= 1")
        return self

    def build(self) -> architecture.Attention:
        """Return the dataclass."""
        values = self.model_dump()
        values["kv_heads"] = self.kv_heads or self.heads
        values["v_head_dim"] = self.v_head_dim or self.head_dim
        return architecture.Attention(**values)


class LinearAttentionTable(_Table):
    """``[layers.linear_attention]``"""

    kind: Literal["gated_deltanet", "mamba2", "kda", "lightning"]
    key_heads: Count
    value_heads: Count
    key_dim: Count
    value_dim: Count
    conv_kernel: Natural = 0
    parameters: Weights
    chunk: Count = 64

    def build(self) -> architecture.LinearAttention:
        """Return the dataclass."""
        return architecture.LinearAttention(**self.model_dump())


class FeedForwardTable(_Table):
    """``[layers.ffn]``"""

    kind: Literal["dense", "moe", "none"] = "dense"
    width: Natural
    gated: bool = True
    experts: Natural = 0
    top_k: Natural = 0
    shared_width: Natural = 0
    groups: Natural = 0
    top_groups: Natural = 0
    latent_size: Natural = 0
    router_bias: bool = False
    shared_gate: bool = False
    bias: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> FeedForwardTable:
        if self.kind == "moe" and not (self.experts and self.top_k):
            raise ValueError("an moe ffn needs experts >= 1 and top_k >= 1")
        if self.kind == "dense" and (self.experts or self.top_k):
            raise ValueError("a dense ffn has no experts; use kind = 'moe'")
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is above the {self.experts} experts")
        if self.kind != "none" and not self.width:
            raise ValueError("width must be >= 1")
        return self

    def build(self) -> architecture.FeedForward:
        """Return the dataclass."""
        return architecture.FeedForward(**self.model_dump())


class LayersTable(_Table):
    """``[[layers]]``"""

    count: Count
    attention: AttentionTable | None = None
    linear_attention: LinearAttentionTable | None = None
    ffn: FeedForwardTable | None = None
    # negative where a plan has less than `count` takes for its kind
    extra_parameters: Annotated[int, Field(ge=-(10**12), le=10**15)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> LayersTable:
        if self.attention and self.linear_attention:
            raise ValueError("give attention or linear_attention, not both")
        if not (self.attention or self.linear_attention or self.ffn):
            raise ValueError("a layer needs attention, linear_attention or ffn")
        return self

    def build(self) -> architecture.Layers:
        """Return the dataclass."""
        mixer = self.attention or self.linear_attention
        return architecture.Layers(
            self.count,
            mixer.build() if mixer else None,
            self.ffn.build() if self.ffn else None,
            self.extra_parameters,
        )


class EncoderTable(_Table):
    """``[[encoders]]``"""

    modality: Literal["image", "audio"]
    layers: Count
    hidden_size: Count
    heads: Count
    ffn_width: Count
    gated: bool = False
    parameters: Weights
    patch_size: Natural = 0
    merge: Count = 1
    window: Natural = 0
    max_tokens: Natural = 0
    tokens_per_second: float = Field(default=0.0, ge=0.0)
    image_size: Natural = 0
    max_tiles: Natural = 0
    patch_inputs: Natural = 0

    def build(self) -> architecture.Encoder:
        """Return the dataclass."""
        return architecture.Encoder(**self.model_dump())


class QuantisationTable(_Table):
    """``[quantisation]``"""

    attention: str = "bf16"
    ffn: str = "bf16"
    experts: str = "bf16"
    head: str = "bf16"
    embedding: str = "bf16"
    kv: str = "bf16"
    activation: str = "bf16"

    @model_validator(mode="after")
    def _known(self) -> QuantisationTable:
        for value in self.model_dump().values():
            if value not in BYTES_PER_ELEMENT:
                raise ValueError(str(unknown_name("data type", value, BYTES_PER_ELEMENT)))
        return self

    def build(self) -> architecture.Quantisation:
        """Return the dataclass."""
        return architecture.Quantisation(**self.model_dump())


class ModelTable(_Table):
    """A model's TOML file. ``extra_parameters`` left out means one final norm."""

    title: Text = ""
    family: Text = ""
    provenance: Literal["published", "unverified", "rumoured", "hypothetical"] = "published"
    source: Text
    released: Text = ""
    hidden_size: Count
    vocab_size: Count
    max_context: Natural = 0
    tied_embeddings: bool = False
    layers: Annotated[list[LayersTable], Field(min_length=1)]
    quantisation: QuantisationTable = QuantisationTable()
    encoders: list[EncoderTable] = []
    mtp_layers: Natural = 0
    mtp_parameters: Weights = 0
    learned_positions: Natural = 0
    extra_parameters: Weights | None = None
    hyper_connections: Count = 1
    ignored: list[Text] = []

    def build(self, name: str) -> architecture.Model:
        """Return the dataclass under a name."""
        values: dict[str, Any] = {
            key: getattr(self, key)
            for key in type(self).model_fields
            if key not in ("layers", "encoders", "quantisation", "ignored", "extra_parameters")
        }
        extra = self.hidden_size if self.extra_parameters is None else self.extra_parameters
        return architecture.Model(
            **{**values, "title": self.title or name},
            name=name,
            layers=tuple(each.build() for each in self.layers),
            encoders=tuple(each.build() for each in self.encoders),
            quantisation=self.quantisation.build(),
            ignored=tuple(self.ignored),
            extra_parameters=extra,
        )
