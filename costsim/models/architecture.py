"""The architecture of a transformer as data: layers by kind, counted and not iterated."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Attention:
    """Softmax attention of one layer kind.

    Args:
        kind: ``full``, ``sliding`` (last ``window`` tokens), ``chunked`` (blocks of ``window``),
            ``mla`` (latent, one shared KV vector), ``dsa`` (MLA whose queries read only the
            ``index_topk`` tokens an indexer chose), ``sparse`` (other block- or top-k-sparse
            softmax attention reading at most ``index_topk`` tokens).
        heads, kv_heads: query and key-value heads.
        head_dim: of queries and keys (for MLA: nope + rope).
        v_head_dim: of values.
        window: tokens seen by ``sliding`` and ``chunked``; 0 otherwise.
        q_lora_rank, kv_lora_rank, rope_head_dim, nope_head_dim: MLA only, 0 otherwise.
        index_heads, index_head_dim, index_topk: the sparse indexer; 0 where there is none.
        kv_compression: tokens merged into one stored KV entry (1: none).
        output_gate: a gate projection of the size of the output (Qwen3-Next style).
        qk_norm, bias: small parameters that the count includes.
        shares_kv: reads the cache of an earlier layer and stores none of its own.
        k_is_v: one projection serves as both keys and values.
        cross: attends to encoder states and not to the text.
        output_lora_rank, output_groups: low-rank grouped output projection, 0 for none.
        shares_index: reads the tokens an earlier layer's indexer chose and has no indexer.
        extra_matrices: weights of further projections that each token multiplies (compressors of
            the cache, gates per head); negative where the kind has one less than usual.
    """

    kind: str
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    window: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    rope_head_dim: int = 0
    nope_head_dim: int = 0
    index_heads: int = 0
    index_head_dim: int = 0
    index_topk: int = 0
    kv_compression: int = 1
    output_gate: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    shares_kv: bool = False
    k_is_v: bool = False
    cross: bool = False
    output_lora_rank: int = 0
    output_groups: int = 0
    shares_index: bool = False
    extra_matrices: int = 0


@dataclass(frozen=True)
class LinearAttention:
    """A layer with a state of constant size: Gated DeltaNet, Mamba-2, KDA, lightning.

    Args:
        kind: ``gated_deltanet``, ``mamba2``, ``kda`` or ``lightning``.
        key_heads, value_heads: heads of the keys (groups for Mamba-2) and values.
        key_dim, value_dim: per head (state size and head size for Mamba-2).
        conv_kernel: taps of the short causal convolution, 0 for none.
        parameters: weights of the whole mixer, exact.
        chunk: tokens per chunk of the parallel prefill form.
    """

    kind: str
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int
    parameters: int
    chunk: int = 64

    @property
    def state_elements(self) -> int:
        """Elements of recurrent state per request and layer."""
        return self.value_heads * self.key_dim * self.value_dim


@dataclass(frozen=True)
class FeedForward:
    """Feed-forward part of one layer kind.

    Args:
        kind: ``dense``, ``moe`` or ``none``.
        width: inner width of the dense FFN, or of one routed expert.
        gated: three matrices (SwiGLU, GeGLU) and not two.
        experts, top_k: routed experts and how many each token uses; 0 for dense.
        shared_width: inner width of all shared experts together; 0 for none.
        groups, top_groups: node-limited routing; 0 for none.
        latent_size: routed experts work on this smaller size (latent MoE); 0: the hidden size.
        router_bias: a bias per expert.
        shared_gate: a sigmoid gate on the shared expert.
        bias: biases in the expert or FFN matrices.
    """

    kind: str
    width: int
    gated: bool = True
    experts: int = 0
    top_k: int = 0
    shared_width: int = 0
    groups: int = 0
    top_groups: int = 0
    latent_size: int = 0
    router_bias: bool = False
    shared_gate: bool = False
    bias: bool = False


@dataclass(frozen=True)
class Layers:
    """``count`` layers of one kind. ``mixer`` or ``ffn`` may be absent (hybrid stacks)."""

    count: int
    mixer: Attention | LinearAttention | None
    ffn: FeedForward | None
    extra_parameters: int = 0


@dataclass(frozen=True)
class Encoder:
    """A vision or audio tower in front of the decoder.

    Args:
        modality: ``image`` or ``audio``.
        layers, hidden_size, heads, ffn_width, gated: of the encoder.
        patch_size: pixels per side of a patch (image).
        merge: patches merged into one prompt token (per side for images).
        parameters: weights of tower and projector together.
        window: patches seen by windowed layers, 0 for all.
        max_tokens: prompt tokens at most per image, 0 for no limit.
        tokens_per_second: of audio.
        image_size: pixels per side that every image (or tile) is scaled to; 0: its own size.
        max_tiles: tiles of ``image_size`` an image is cut into at most, 0: one.
        patch_inputs: numbers that the first projection takes per patch (colours x pixels).
    """

    modality: str
    layers: int
    hidden_size: int
    heads: int
    ffn_width: int
    gated: bool
    parameters: int
    patch_size: int = 0
    merge: int = 1
    window: int = 0
    max_tokens: int = 0
    tokens_per_second: float = 0.0
    image_size: int = 0
    max_tiles: int = 0
    patch_inputs: int = 0


@dataclass(frozen=True)
class Quantisation:
    """How the checkpoint stores its weights (keys of `costsim.dtypes.BYTES_PER_ELEMENT`).

    Args:
        attention, ffn, experts, head, embedding: data type of each part's weights.
        kv: data type of the KV cache the checkpoint asks for.
        activation: data type GEMM inputs are quantised to, for the quantised parts.
    """

    attention: str = "bf16"
    ffn: str = "bf16"
    experts: str = "bf16"
    head: str = "bf16"
    embedding: str = "bf16"
    kv: str = "bf16"
    activation: str = "bf16"


@dataclass(frozen=True)
class Model:
    """A transformer.

    Args:
        name: name in the library, such as ``"llama-3.1-70b"``.
        title: the name to show.
        hidden_size, vocab_size: d and V.
        layers: layer kinds with their counts.
        tied_embeddings: LM head shares the embedding's weights.
        max_context: tokens at most per request.
        quantisation: data types of the checkpoint.
        encoders: vision and audio towers.
        mtp_layers: multi-token-prediction layers, of the last layer's kind.
        mtp_parameters: their weights, not counted in the total.
        learned_positions: rows of a learned position table; 0 for none.
        extra_parameters: weights outside layers, embedding and head (final norm …).
        hyper_connections: parallel residual streams (1: a plain residual).
        ignored: what the config has and this description leaves out, one line each.
        provenance: ``published``, ``unverified``, ``rumoured`` or ``hypothetical`` (a variant).
        source: where the description comes from.
        released: ISO date.
    """

    name: str
    title: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layers, ...]
    tied_embeddings: bool = False
    max_context: int = 0
    quantisation: Quantisation = field(default_factory=Quantisation)
    encoders: tuple[Encoder, ...] = ()
    mtp_layers: int = 0
    mtp_parameters: int = 0
    learned_positions: int = 0
    extra_parameters: int = 0
    hyper_connections: int = 1
    ignored: tuple[str, ...] = ()
    provenance: str = "published"
    source: str = ""
    released: str = ""
    family: str = ""


def is_moe(model: Model) -> bool:
    """Return whether any layer has routed experts."""
    return any(k.ffn is not None and k.ffn.kind == "moe" for k in model.layers)
