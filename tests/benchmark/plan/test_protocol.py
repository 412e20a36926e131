"""Protocols: what they hold, and what a change of one says."""

from __future__ import annotations

import msgspec
import pytest

from peftmark import METHODS
from peftmark.benchmark.plan.protocol import PROTOCOLS, load_protocol, protocol_of
from peftmark.errors import PeftmarkError
from peftmark.results import ProtocolSpec


@pytest.mark.parametrize("name", sorted(path.stem for path in PROTOCOLS.glob("*.toml")))
def test_every_shipped_protocol_is_what_its_file_is_called(name: str) -> None:
    protocol = load_protocol(name)
    assert f"{protocol.name}-v{protocol.version}" == name
    assert protocol_of(ProtocolSpec(name=protocol.name, version=protocol.version)) == protocol


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    plain, changed = load_protocol("embedded-v1"), load_protocol("embedded-v1", {"epochs": 3, "weight_decay": 0})
    assert (changed.epochs, changed.weight_decay) == (3, 0.0)
    assert (plain.name, plain.version, plain.batch_size) == (changed.name, changed.version, changed.batch_size)
    spec = ProtocolSpec(name="embedded", version=1, overrides={"epochs": 3, "weight_decay": 0})
    assert protocol_of(spec) == changed


def test_a_protocol_is_frozen() -> None:
    with pytest.raises(AttributeError):
        load_protocol("embedded-v1").epochs = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epocs": 2}, "protocol embedded-v1 has no setting 'epocs': did you mean epochs?"),
        ({"zzz": 2}, "protocol embedded-v1 has no setting 'zzz': it has batch_size, default_learning_rate, epochs, "),
        ({"version": 2}, "protocol embedded-v1 has no setting 'version'"),
        ({"learning_rates": {}}, "protocol embedded-v1 has no setting 'learning_rates': did you mean learning_rate"),
        ({"epochs": "many"}, "protocol embedded-v1: Expected `int`, got `str` - at `$.epochs`"),
        ({"epochs": 1.5}, "protocol embedded-v1: Expected `int`"),
        ({"epochs": -1}, "protocol embedded-v1: epochs and warmup_epochs must not be negative"),
        ({"batch_size": 0}, "protocol embedded-v1: epochs and warmup_epochs must not be negative, batch_size must"),
        ({"optimizer": "adam"}, "protocol embedded-v1: Invalid enum value 'adam' - at `$.optimizer`"),
        ({"precision": "float16"}, "protocol embedded-v1: Invalid enum value 'float16' - at `$.precision`"),
    ],
)
def test_a_bad_override_is_one_line(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        load_protocol("embedded-v1", overrides)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_unknown_protocol() -> None:
    with pytest.raises(PeftmarkError, match=r"unknown protocol 'embedded-v9': there is .*embedded-v1"):
        load_protocol("embedded-v9")


def test_learning_rates_are_by_family_and_for_some_by_method() -> None:
    protocol = load_protocol("embedded-v1")
    assert protocol.learning_rate_of("vpt_deep", "additive") == protocol.learning_rates["additive"]
    assert protocol.learning_rate_of("mine", "a user's own") == protocol.default_learning_rate
    own = msgspec.structs.replace(protocol, method_learning_rates={"mine": 0.125})
    assert own.learning_rate_of("mine", "additive") == own.learning_rate_of("mine", "a user's own") == 0.125
    assert own.learning_rate_of("vpt_deep", "additive") == protocol.learning_rates["additive"]
    one = msgspec.structs.replace(own, learning_rate=0.25)
    assert one.learning_rate_of("mine", "additive") == one.learning_rate_of("vpt_deep", "additive") == 0.25
    assert load_protocol("embedded-v1", {"learning_rate": "0.25"}) == msgspec.structs.replace(
        protocol, learning_rate=0.25
    )  # as text from the command line
    other = load_protocol("embedded-v1", {"default_learning_rate": 0.5})
    assert other.learning_rate_of("mine", "a user's own") == 0.5
    assert other.learning_rate_of("vpt_deep", "additive") == protocol.learning_rates["additive"]


@pytest.mark.parametrize("name", sorted(path.stem for path in PROTOCOLS.glob("*.toml")))
def test_the_methods_and_families_of_a_protocol_exist(name: str) -> None:
    protocol = load_protocol(name)
    assert set(protocol.method_learning_rates) <= set(METHODS.names())
    assert set(protocol.learning_rates) == {METHODS.entry(method).family for method in METHODS.names()}
