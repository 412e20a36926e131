"""The record of a run that could not write its own: its worker died, or it took too long."""

from __future__ import annotations

from typing import Literal

import torch

from ...results import CostSpec, ErrorInfo, Store
from ..measure.profile import failed, new_record
from ..plan.runs import Spec
from ..run.run import failed_record
from .outcome import Options, Outcome


def record_failure(
    spec: Spec, options: Options, status: Literal["timeout", "oom", "error"], error: ErrorInfo
) -> Outcome:
    """Write it, where that is possible."""
    device, store, place = torch.device(options.device), Store(options.results), options.place(spec)
    try:
        if isinstance(spec, CostSpec):
            cost = failed(new_record(spec, device), status, error)
            store.write_cost(cost, place)
            return Outcome.of(cost, 0.0)
        record = failed_record(spec, device, status, error)
        store.write(record, place)
        return Outcome.of(record, 0.0)
    except OSError as problem:  # a full disk must not end the other runs
        message = f"{error.message}; its record cannot be written ({problem.strerror})"
        return Outcome(spec=spec, status="error", figure=None, seconds=0.0, message=message)
