"""How one model instance is spread over accelerators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """Parallel layout of one replica; each field may be an integer array for a search.

    A pipeline stage holds ``tp · dp · cp`` accelerators. Attention runs in ``dp`` groups, each
    of ``tp`` tensor-parallel ranks (and ``cp`` context-parallel ranks that share a request's KV
    cache in decode). The experts of a stage are spread over the same ``tp · dp · cp``
    accelerators: ``ep`` ways by expert and ``moe_tp = tp · dp · cp / ep`` ways inside each.

    Args:
        tp: tensor parallelism of attention and dense layers.
        pp: pipeline stages.
        ep: expert parallelism; 1 slices every expert over all ranks of the stage.
        dp: attention data parallelism inside the replica (its ranks step together).
        cp: context parallelism in decode.
        sequence_parallel: norms and residuals sharded over tp; all-reduce becomes
            reduce-scatter and all-gather.
    """

    tp: Any = 1
    pp: Any = 1
    ep: Any = 1
    dp: Any = 1
    cp: Any = 1
    sequence_parallel: bool = False

    @property
    def accelerators(self) -> Any:
        """Accelerators of one replica."""
        return self.tp * self.pp * self.dp * self.cp

    @property
    def moe_tp(self) -> Any:
        """Ways in which each expert is sliced."""
        return self.tp * self.dp * self.cp // self.ep

    def __str__(self) -> str:
        parts = [f"TP{self.tp}"]
        parts += [f"{k.upper()}{getattr(self, k)}" for k in ("pp", "ep", "dp", "cp")
                  if getattr(self, k) != 1]
        return " ".join(parts)
