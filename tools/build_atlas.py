"""Rebuild the sprite atlas from its drawings: ``python -m tools.build_atlas``.

Fetches six pinned npm packages with ``npm pack`` (or reads them from ``--packages DIR``, a folder with their unpacked
contents), renders every drawing to 48 pixels and writes ``atlas.json`` and one lossless sheet a style. Needs ``npm``
and ``resvg_py``; the benchmark itself needs neither.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import re
import subprocess
import tarfile
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from peftmark.backbones.embedded.atlas import FOLDER, SPRITE_SIZE, STYLES

log = logging.getLogger(__name__)

PACKAGES = {
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0"),
    "fluent": ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    "emojione": ("@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
    "fxemoji": ("@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    "names": ("emojibase-data", "17.0.0", "MIT"),
}
FULL_STYLES = ("noto", "fluent", "twemoji")  # an emoji is in the atlas if these three draw it
FALSE_FRIENDS = {"bow"}  # fxemoji's ribbon, which a short code takes for a person bowing
HELD_OUT_FRACTION = 0.2
COLUMNS = 40

Emoji = dict[str, Any]  # a row of emojibase's data, or of the atlas's table
Shortcodes = dict[str, str | list[str]]


def fetch(folder: Path) -> dict[str, Path]:
    """Download and unpack every package below ``folder``; returns where each lies."""
    unpacked = {}
    for key, (package, version, _) in PACKAGES.items():
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package}@{version}"]
        archive = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        with tarfile.open(folder / archive) as tar:
            tar.extractall(folder / key, filter="data")
        unpacked[key] = folder / key / "package"
    return unpacked


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def compact(text: str) -> str:
    """A name without case, accents, spaces and punctuation: how fxemoji spells its icons."""
    plain = unicodedata.normalize("NFKD", text.lower()).replace("&", "and")
    return re.sub(r"[^a-z0-9]", "", plain)


def plain_hexcode(hexcode: str) -> str:
    """Lower case, without the emoji presentation selector, as iconify writes code points."""
    return hexcode.lower().replace("-fe0f", "")


def family(hexcode: str) -> str:
    """One key for an emoji's man, woman and person variants, which must not straddle the held-out split."""
    parts = [part for part in plain_hexcode(hexcode).split("-") if part not in ("200d", "2640", "2642")]
    people = {"1f468": "1f9d1", "1f469": "1f9d1"}
    return "-".join(people.get(part, part) for part in parts)


def spellings(emoji: Emoji, shortcodes: list[Shortcodes]) -> Iterator[list[str]]:
    """Lists of compacted names for an emoji, the most trustworthy list first."""
    yield [compact(emoji["label"])]
    code = plain_hexcode(emoji["hexcode"])
    yield [compact(unicodedata.name(chr(int(code, 16)), ""))] if "-" not in code else []
    for table in shortcodes:
        names = table.get(emoji["hexcode"], [])
        yield [compact(name) for name in ([names] if isinstance(names, str) else names)]


def match_by_name(icons: Iterable[str], roster: list[Emoji], shortcodes: list[Shortcodes]) -> dict[str, str]:
    """Hexcode to icon for the styles that ship no code points; an icon serves one emoji only."""
    free = {compact(icon): icon for icon in icons}
    for icon in ("", *FALSE_FRIENDS):
        free.pop(icon, None)
    candidates = [list(spellings(emoji, shortcodes)) for emoji in roster]
    found: dict[str, str] = {}
    for level in range(len(candidates[0])):
        claims = defaultdict(list)
        for emoji, names in zip(roster, candidates, strict=True):
            if emoji["hexcode"] not in found:
                for name in set(names[level]) & free.keys():
                    claims[name].append(emoji["hexcode"])
        for name, hexcodes in claims.items():
            if len(hexcodes) == 1 and hexcodes[0] not in found:
                found[hexcodes[0]] = free.pop(name)
    return found


def render(collection: dict[str, Any], icon: str) -> np.ndarray:
    """Draw an icon, centred and as large as it fits, into uint8 (48, 48, 4) with straight alpha."""
    import resvg_py

    alias = collection.get("aliases", {}).get(icon, {})
    drawing = collection["icons"][alias.get("parent", icon)]
    width = drawing.get("width", collection.get("width", 16))
    height = drawing.get("height", collection.get("height", 16))
    left, top = drawing.get("left", 0), drawing.get("top", 0)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{height}" viewBox="{left} {top} {width} {height}">{drawing["body"]}</svg>'
    )
    wide = width >= height
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        skip_system_fonts=True,
        width=SPRITE_SIZE if wide else None,
        height=None if wide else SPRITE_SIZE,
    )
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    canvas.paste(image, ((SPRITE_SIZE - image.width) // 2, (SPRITE_SIZE - image.height) // 2))
    pixels = np.array(canvas)
    if alias.get("hFlip"):
        pixels = pixels[:, ::-1].copy()
    pixels[pixels[..., 3] == 0] = 0  # invisible colours would only cost bytes
    return pixels


def choose_held_out(rows: list[Emoji]) -> list[bool]:
    """A fifth of every subgroup by a hash of the family, the remainder carried on so that the total is a fifth."""
    by_subgroup: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        by_subgroup[row["subgroup"]][family(row["hexcode"])].append(index)
    chosen: set[int] = set()
    total = 0
    for families in by_subgroup.values():
        total += sum(map(len, families.values()))
        wanted = HELD_OUT_FRACTION * total - len(chosen)
        for key in sorted(families, key=lambda key: hashlib.sha256(key.encode()).hexdigest()):
            if len(families[key]) <= wanted + 0.5:
                chosen.update(families[key])
                wanted -= len(families[key])
    return [index in chosen for index in range(len(rows))]


def build(packages: dict[str, Path], out: Path) -> None:
    """Align, render and write the atlas into ``out``."""
    collections = {style: read_json(packages[style] / "icons.json") for style in STYLES}
    taxonomy = read_json(packages["names"] / "meta" / "groups.json")
    data = read_json(packages["names"] / "en" / "data.json")
    shortcodes = [
        read_json(packages["names"] / "en" / "shortcodes" / f"{name}.json")
        for name in ("cldr", "emojibase", "emojibase-legacy", "joypixels", "iamcal", "github")
    ]
    by_code = {style: read_json(packages[style] / "chars.json") for style in FULL_STYLES}
    roster = [
        emoji
        for emoji in sorted(data, key=lambda emoji: emoji.get("order", 0))
        if taxonomy["groups"].get(str(emoji.get("group"))) not in (None, "component")
        and all(plain_hexcode(emoji["hexcode"]) in by_code[style] for style in FULL_STYLES)
    ]
    by_name = {
        style: match_by_name(collections[style]["icons"], roster, shortcodes)
        for style in STYLES
        if style not in FULL_STYLES
    }

    rows, drawings, seen = [], [], set()
    for emoji in roster:
        code = plain_hexcode(emoji["hexcode"])
        icons = {
            style: by_code[style][code] if style in FULL_STYLES else by_name[style].get(emoji["hexcode"])
            for style in STYLES
        }
        sprites = {style: render(collections[style], icon) for style, icon in icons.items() if icon}
        looks = [(style, sprites[style].tobytes()) for style in FULL_STYLES]
        if any(look in seen for look in looks):  # drawn exactly like an earlier emoji: its name could not be told
            continue
        seen.update(looks)
        rows.append(
            {
                "name": emoji["label"],
                "hexcode": emoji["hexcode"],
                "tags": emoji.get("tags", []),
                "group": taxonomy["groups"][str(emoji["group"])],
                "subgroup": taxonomy["subgroups"][str(emoji["subgroup"])],
                "styles": list(sprites),
            }
        )
        drawings.append(sprites)
    for row, held_out in zip(rows, choose_held_out(rows), strict=True):
        row["held_out"] = held_out

    empty = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    for style in STYLES:
        cells = [sprites.get(style, empty) for sprites in drawings]
        cells += [empty] * (-len(cells) % COLUMNS)
        grid = np.stack(cells).reshape(-1, COLUMNS, SPRITE_SIZE, SPRITE_SIZE, 4).swapaxes(1, 2)
        sheet = Image.fromarray(grid.reshape(-1, COLUMNS * SPRITE_SIZE, 4))
        sheet.save(out / f"atlas_{style}.webp", lossless=True, exact=True, quality=100, method=6)
    table = {
        "packages": {name: {"version": version, "license": licence} for name, version, licence in PACKAGES.values()},
        "styles": STYLES,
        "sprite_size": SPRITE_SIZE,
    }
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    head = json.dumps(table, indent=1)[:-2]
    (out / "atlas.json").write_text(f'{head},\n "emoji": [\n{lines}\n]}}\n', encoding="utf-8")

    drawn = Counter(style for row in rows for style in row["styles"])
    held = sum(row["held_out"] for row in rows)
    log.info("%d of %d emoji, %d held out; drawn: %s", len(rows), len(roster), held, dict(drawn))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="an npm project folder that has the packages in node_modules")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write (default: backbones/embedded)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.packages:
        unpacked = {key: arguments.packages / "node_modules" / name for key, (name, _, _) in PACKAGES.items()}
        for key, (name, version, _) in PACKAGES.items():
            found = read_json(unpacked[key] / "package.json")["version"]
            if found != version:
                parser.error(f"{name} is {found} in {arguments.packages}; the atlas is pinned to {version}")
        build(unpacked, arguments.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            build(fetch(Path(folder)), arguments.out)


if __name__ == "__main__":
    main()
