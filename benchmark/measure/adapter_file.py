"""The size of an adapter's file, without its data."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names of types in the file, in the order in which the library writes them."""


def safetensors_bytes(state: Mapping[str, Tensor]) -> int:
    """How many bytes ``safetensors.torch.save(state)`` would give; of fake tensors too.

    The format: eight bytes, a JSON header padded to a multiple of eight, the data.
    """
    header, end = dict[str, object](), 0
    order = list(_DTYPES)
    for name, tensor in sorted(state.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end
