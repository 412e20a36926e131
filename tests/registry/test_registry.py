"""`Registry`: names in, objects out, and what is said when that fails."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftmark.errors import PeftmarkError
from peftmark.registry import Entry, Registry

name_texts = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=8)


class Thing:
    """A thing.

    More about it.
    """


class OtherThing:
    """Another."""


def entry(name: str, load: Any = Thing, *, aliases: tuple[str, ...] = (), **metadata: Any) -> Entry[Any]:
    """An entry whose object is made on first use."""
    return Entry(name, metadata, "A doc.", f"origin.of.{name}", name, lambda: load(), aliases)


@pytest.fixture
def registry() -> Registry[Any]:
    registry: Registry[Any] = Registry("thing", required=("family",))
    registry.register("lora", family="low_rank", aliases=("lora_linear",))(Thing)
    registry.add(entry("adapter", family="additive"))
    registry.add(entry("adaptformer", family="additive"))
    registry.add(entry("timm/*", family="timm"))
    return registry


def test_register_returns_its_target_and_keeps_what_it_was_told(registry: Registry[Any]) -> None:
    assert registry.register("new", family="f", tracks=("image",))(OtherThing) is OtherThing
    assert registry["new"] is OtherThing
    described = registry.entry("new").as_row()
    assert described == {
        "name": "new",
        "family": "f",
        "tracks": ("image",),
        "summary": "Another.",
        "origin": OtherThing.__module__,
    }


def test_doc_and_summary(registry: Registry[Any]) -> None:
    assert registry.entry("lora").doc == "A thing.\n\nMore about it."
    assert registry.entry("lora").summary == "A thing."


def test_names_by_wildcard(registry: Registry[Any]) -> None:
    assert registry.names() == ["adapter", "adaptformer", "lora", "timm/*"]
    assert registry.names("adapt*") == ["adapter", "adaptformer"]
    assert registry.names("additive/*") == ["adapter", "adaptformer"]
    assert registry.names("additive/*former") == ["adaptformer"]
    assert registry.names("LORA") == []
    assert list(registry) == registry.names()
    assert len(registry) == 4


def test_a_plain_name_may_carry_its_family(registry: Registry[Any]) -> None:
    assert registry.canonical("additive/adapter") == "adapter"
    assert registry.expand("low_rank/lora") == ["lora"]
    with pytest.raises(PeftmarkError, match="unknown thing 'additive/lora'"):
        registry.entry("additive/lora")


def test_alias_is_found_but_not_listed(registry: Registry[Any]) -> None:
    assert registry["lora_linear"] is registry["lora"]
    assert registry.canonical("lora_linear") == "lora"
    assert "lora_linear" not in registry.names()
    assert registry.expand("lora_linear") == ["lora"]


def test_namespace_answers_for_what_is_below_it(registry: Registry[Any]) -> None:
    assert registry.entry("timm/vit_base").name == "timm/*"
    assert registry.canonical("timm/vit_base") == "timm/vit_base"
    assert "timm/anything" in registry
    assert "timm" not in registry
    assert registry.entry("timm/x").namespace == "timm/"
    assert registry.entry("lora").namespace is None
    with pytest.raises(PeftmarkError, match="no thing matches 'timm/x\\*'"):
        registry.expand("timm/x*")


def test_a_namespace_lists_its_members_to_who_asks_below_it(registry: Registry[Any]) -> None:
    """`*` must not load it: what is below may need an import of seconds, or an extra."""
    loaded: list[str] = []

    class Bridge:
        @staticmethod
        def members() -> list[str]:
            return ["bridge/b", "bridge/a", "bridge/lora"]

    def load() -> type[Bridge]:
        loaded.append("bridge")
        return Bridge

    registry.add(entry("bridge/*", load, family="bridge"))
    assert registry.expand("*") == ["adapter", "adaptformer", "lora"]
    assert "bridge/*" in registry.names()
    assert registry.members("*") == registry.members("b*") == []
    assert loaded == []
    assert registry.expand("bridge/*") == registry.members("bridge/*") == ["bridge/a", "bridge/b", "bridge/lora"]
    assert registry.expand("bridge/[ab]") == ["bridge/a", "bridge/b"]
    assert registry.expand("bridge/anything") == ["bridge/anything"]
    with pytest.raises(PeftmarkError, match="no thing matches 'bridge/x\\*'"):
        registry.expand("bridge/x*")
    assert registry.members("timm/*") == []
    assert loaded == ["bridge"]


def test_expand_never_gives_a_namespace(registry: Registry[Any]) -> None:
    assert registry.expand("*") == ["adapter", "adaptformer", "lora"]


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("loora", "did you mean lora?"),
        ("adaptfromer", "did you mean adaptformer"),
        ("additive/adaptfromer", "did you mean adaptformer"),
        ("zzzz", "see `peftmark list things`"),
    ],
)
def test_an_unknown_name_gets_the_nearest(registry: Registry[Any], asked: str, hint: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        registry[asked]
    assert str(error.value).startswith(f"unknown thing {asked!r}: {hint}")
    assert asked not in registry


def test_a_wildcard_that_matches_nothing(registry: Registry[Any]) -> None:
    with pytest.raises(PeftmarkError, match=r"no thing matches 'z\*': see `peftmark list things`"):
        registry.expand("z*")


@pytest.mark.parametrize("name", ["lora", "lora_linear"])
def test_a_name_registered_twice_names_both_origins(registry: Registry[Any], name: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        registry.add(entry(name, family="mine"))
    assert str(error.value) == (
        f"thing '{name}' is registered twice: by {Thing.__module__} and by origin.of.{name}; rename one"
    )
    assert registry["lora"] is Thing


@pytest.mark.parametrize(("origin", "qualname"), [("elsewhere", "Thing"), (Thing.__module__, "OtherThing")])
def test_origin_and_name_of_the_object_both_count(registry: Registry[Any], origin: str, qualname: str) -> None:
    """A class of the same name in another file, and another class in the same file, are other things."""
    with pytest.raises(PeftmarkError, match="'lora' is registered twice"):
        registry.add(Entry("lora", {"family": "f"}, "", origin, qualname, Thing))


def test_an_alias_that_is_taken_leaves_nothing_behind(registry: Registry[Any]) -> None:
    with pytest.raises(PeftmarkError, match="'adapter' is registered twice"):
        registry.add(entry("mine", family="mine", aliases=("adapter",)))
    assert "mine" not in registry


def test_the_same_object_again_is_no_duplicate(registry: Registry[Any]) -> None:
    registry.register("lora", family="low_rank", aliases=("lora_linear",))(Thing)
    assert registry["lora"] is Thing


def test_missing_metadata(registry: Registry[Any]) -> None:
    with pytest.raises(PeftmarkError, match=r"thing 'bare': register\(\) needs family"):
        registry.register("bare")(OtherThing)
    assert "bare" not in registry


def test_loading_is_lazy_and_happens_once() -> None:
    loaded: list[object] = []

    def load() -> object:
        loaded.append(object())
        return loaded[-1]

    registry: Registry[Any] = Registry("thing", lambda: [entry("a", load)])
    assert registry.names() == ["a"]
    assert "a" in registry
    assert registry.entry("a").summary == "A doc."
    assert loaded == []
    assert registry["a"] is registry["a"]
    assert len(loaded) == 1


def test_scan_happens_once_and_on_first_use() -> None:
    scans: list[int] = []

    def scan() -> list[Entry[Any]]:
        scans.append(1)
        return [entry("a")]

    registry: Registry[Any] = Registry("thing", scan)
    assert scans == []
    registry.names()
    registry["a"]
    assert scans == [1]


def test_a_scan_that_fails_fails_again() -> None:
    """Half a catalogue must not be taken for a whole one."""

    def scan() -> Any:
        yield entry("a")
        raise PeftmarkError("line 3: not a literal")

    registry: Registry[Any] = Registry("thing", scan)
    for _ in range(2):
        with pytest.raises(PeftmarkError, match="not a literal"):
            registry.names()


@given(st.dictionaries(name_texts, name_texts, max_size=8))
def test_every_name_is_found_by_every_way_to_write_it(families: dict[str, str]) -> None:
    registry: Registry[Any] = Registry("thing", required=("family",))
    for name, family in families.items():
        registry.add(entry(name, lambda name=name: name, family=family))
    assert registry.names() == sorted(families)
    for name, family in families.items():
        assert registry[name] == registry[f"{family}/{name}"] == name
        assert registry.canonical(f"{family}/{name}") == name
        assert name in registry.names(f"{family}/*")
        assert registry.expand(f"{family}/{name}") == [name]
    assert sorted(n for family in set(families.values()) for n in registry.names(f"{family}/*")) == sorted(families)
