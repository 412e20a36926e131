"""The libraries that pages use, copied from the Python packages that carry them: DataTables and Plotly.

A page that is opened from a file may load classic scripts only. ITables carries DataTables as a module: its export
becomes a global name, nothing else changes.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from ...errors import PeftmarkError

TABLES = "datatables.js"
CHARTS = "plotly.js"

_EXPORT = re.compile(r"\bexport\s*\{([^{}]*)\};?")
_JQUERY = re.compile(r"(\w+|\$\w*) as jQuery\b")


def write_libraries(folder: Path) -> None:
    """Write ``datatables.js`` (sets ``jQuery``, which has ``$.fn.DataTable``) and ``plotly.js`` (sets ``Plotly``).

    Raises:
        PeftmarkError: where the installed version of a package carries something else.
    """
    module = (_folder("itables") / "html" / "dt_bundle.js").read_text("utf-8")
    (folder / TABLES).write_text(as_classic_script(module), "utf-8")
    shutil.copyfile(_folder("plotly") / "package_data" / "plotly.min.js", folder / CHARTS)


def _folder(package: str) -> Path:
    """Where a package lies. It is not imported: pandas would come with it, and take longer than a small board."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise PeftmarkError(
            f"the package {package}, whose scripts the pages use, is not installed: pip install {package}"
        )
    return Path(found.submodule_search_locations[0])


def as_classic_script(module: str) -> str:
    """An ES module without imports, as a script that sets the ``jQuery`` which it exports.

    >>> as_classic_script("var a=1,b=2;export{a as DataTable,b as jQuery};")
    '"use strict";(()=>{var a=1,b=2;globalThis.jQuery=b;})();'
    """
    exports = list(_EXPORT.finditer(module))
    name = _JQUERY.search(exports[-1][1]) if exports else None
    if name is None:
        raise PeftmarkError("the installed itables carries another kind of DataTables: install itables>=2.9,<3")
    start, end = exports[-1].span()
    return f'"use strict";(()=>{{{module[:start]}globalThis.jQuery={name[1]};{module[end:].rstrip()}}})();'
