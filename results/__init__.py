"""Records, their store and frames. Imports no torch."""

from .cards import Card, read_cards, write_card
from .frame import load_results, to_frame
from .record import (
    FINISHED,
    SCHEMA_VERSION,
    BackboneSpec,
    Env,
    ErrorInfo,
    MethodSpec,
    Params,
    ProtocolSpec,
    Quality,
    RunRecord,
    RunSpec,
    Storage,
    TaskSpec,
    TestFigure,
    Time,
    canonical_json,
    decode_record,
    encode_record,
)
from .store import ADAPTERS, Store, write_atomically

__all__ = [
    "ADAPTERS",
    "FINISHED",
    "SCHEMA_VERSION",
    "BackboneSpec",
    "Card",
    "Env",
    "ErrorInfo",
    "MethodSpec",
    "Params",
    "ProtocolSpec",
    "Quality",
    "RunRecord",
    "RunSpec",
    "Storage",
    "Store",
    "TaskSpec",
    "TestFigure",
    "Time",
    "canonical_json",
    "decode_record",
    "encode_record",
    "load_results",
    "read_cards",
    "to_frame",
    "write_atomically",
    "write_card",
]
