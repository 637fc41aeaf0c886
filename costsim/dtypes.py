"""Data types of weights, activations and KV cache: bytes per element and the rate they run at."""

from __future__ import annotations

from costsim.errors import unknown_name

# Bytes per element, scales included: nvfp4 holds one fp8 scale per 16 elements, mxfp4 one
# 8-bit scale per 32, int4 (AWQ/GPTQ, groups of 128) an fp16 scale and a 4-bit zero per group,
# fp8_block one fp32 scale per 128x128 block.
BYTES_PER_ELEMENT: dict[str, float] = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0 + 4 / (128 * 128),
    "int8": 1.0,
    "nvfp4": 0.5 + 1 / 16,
    "mxfp4": 0.5 + 1 / 32,
    "int4": 0.5 + 2.5 / 128,
    # 2:4 structured sparsity: half the elements and 2 bits of position for each that is kept.
    "bf16_2to4": 2.0 * 0.5 + 0.5 * 2 / 8,
    "fp8_2to4": 1.0 * 0.5 + 0.5 * 2 / 8,
    # Block-sparse (blocks of 32x32, 4 bytes of position each) at half and a quarter density.
    "bf16_blocks50": 0.50 * (2.0 + 4 / 1024),
    "bf16_blocks25": 0.25 * (2.0 + 4 / 1024),
}

# Sparse weights save bytes; that they also save arithmetic depends on the kernel (2:4: 1.3 to 1.7
# times in practice), so the rate stays that of the dense type until a measurement says more.
# The peak rate (key of Hardware.peak_flop_per_s) a GEMM of weight type X runs at when its
# activations are of the same type. int4 is weight-only: it computes at the activations' rate.
RATE_OF: dict[str, str] = {
    "fp32": "fp32",
    "tf32": "tf32",
    "bf16": "bf16",
    "fp16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "int8": "int8",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "int4": "bf16",
    "bf16_2to4": "bf16",
    "fp8_2to4": "fp8",
    "bf16_blocks50": "bf16",
    "bf16_blocks25": "bf16",
}


def bytes_per_element(dtype: str) -> float:
    """Return the bytes of one element of a data type, its scales included.

    Raises:
        InputError: the data type is unknown.
    """
    if dtype not in BYTES_PER_ELEMENT:
        raise unknown_name("data type", dtype, BYTES_PER_ELEMENT)
    return BYTES_PER_ELEMENT[dtype]


def rate_of(weight: str, activation: str) -> str:
    """Return the key of the peak rate at which weights and activations of two types multiply.

    The wider of the two decides: fp8 weights with bf16 activations run at the bf16 rate.
    """
    wider = weight if bytes_per_element(weight) >= bytes_per_element(activation) else activation
    return RATE_OF[wider]
