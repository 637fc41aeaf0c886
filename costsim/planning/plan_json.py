"""A plan as plain data: for JSON, tables and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.planning.commands_out import engine_command, engines_of, roles_of, start_script
from costsim.planning.kubernetes_out import kubernetes_yaml
from costsim.planning.plan_breakeven import plan_break_even
from costsim.planning.plan_energy import plan_energy
from costsim.planning.plan_worth import spend_by_offer

if TYPE_CHECKING:
    from costsim.planning.plan_result import PlanResult


def plan_dict(plan: PlanResult) -> dict[str, Any]:
    """Return everything a plan says, as numbers, words, lists and tables."""
    fleet, found = plan.problem.fleet, plan.solution
    return {
        "usd_per_month": plan.usd_per_month,
        "usd_per_query": plan.usd_per_query,
        "queries_per_month": plan.queries_per_month,
        "usd_per_query_by_demand": plan.usd_by_demand(),
        "gap": found.gap, "bound_usd_per_month": found.bound_usd,
        "lp_gap": found.lp_gap, "lp_bound_usd_per_month": found.lp_bound_usd,
        "operating_points_considered": plan.problem.considered,
        "pools": pool_rows(plan),
        "committed_chips": [
            {"hardware": fleet.offers[g].name, "term": term, "chips": n}
            for (g, term), n in found.committed.items()
        ],
        "spend_usd_per_month": spend_by_offer(fleet, found),
        "bill_usd": {name: float(usd) for name, usd in plan.bill.items()},
        "hours": [
            {"hour": h, "requests_per_s": float(fleet.demand[:, h].sum()),
             "chips": {k: float(v[h]) for k, v in plan.chips().items()}}
            for h in range(fleet.demand.shape[1])
        ],
        "simulated": [vars(row) | {"held": row.held} for row in plan.held],
        "holds": plan.holds, "rounds": plan.rounds,
        "runners_up": [vars(row) for row in plan.runners_up],
        "worth_usd_per_month": None if plan.worth is None else {
            k: v for k, v in vars(plan.worth).items() if k != "relaxation"
        },
        "excluded": dict(plan.problem.lost), "notes": list(plan.notes),
        "break_even": plan_break_even(plan).as_dict(),
        "energy": plan_energy(plan).as_dict(),
        "seconds": plan.seconds,
        "uncertainty": None if plan.uncertainty is None else plan.uncertainty.as_dict(),
    }  # fmt: skip


def pool_rows(plan: PlanResult) -> list[dict[str, Any]]:
    """Return one row for each pool in use."""
    rows = []
    fleet, found = plan.problem.fleet, plan.solution
    for c, pool in enumerate(fleet.pools):
        count = found.replicas[c] + found.spot[c]
        if not count.any():
            continue
        k = plan.problem.candidate(c)
        able = zip(plan.problem.demands, pool.capacity, strict=True)
        carries = [d.name for d, r in able if r > 0]
        rows.append({
            "pool": pool.name, "model": k.deployment.model.name,
            "hardware": k.deployment.hardware.name, "layout": str(k.deployment.layout),
            "role": k.role, "prefill_replicas": k.prefill, "decode_replicas": k.decode,
            "chips_per_replica": pool.chips, "serves": carries,
            "requests_per_s_per_replica": max(pool.capacity), "batch_limit": k.batch_limit,
            "mean_batch": k.batch, "ttft_s": k.ttft_s, "tpot_s": k.tpot_s,
            "bottleneck": k.bottleneck, "replicas_by_hour": found.replicas[c].tolist(),
            "spot_by_hour": found.spot[c].tolist(),
            "min_replicas": int(np.min(count)), "max_replicas": int(np.max(count)),
            "commands": {e: [engine_command(k, e, role) for role in roles_of(k)] 
                         for e in engines_of(k)},
            "script": start_script(k),
            "kubernetes": kubernetes_yaml(k, int(np.max(count)), by_hour=count.tolist()),
        })  # fmt: skip
    return rows
