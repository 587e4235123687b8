"""The page of the digits demo: built from web/digits, carried by the package, laid out in a folder of its own."""

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from shoal.core.errors import ConfigurationError
from shoal.demo.digits.rows import Pair
from shoal.server.web_runtime import installed

BUILT = ("index.html", "page.js", "worker.js", "service.js")
STARTING = "starting.json"


def lay_out(folder: Path, starting: Pair) -> None:
    """Copy the page, and write the digits that a browser begins with.

    Raises ConfigurationError in a checkout where it is not built.
    """
    with as_file(files("shoal.demo") / "static" / "digits") as built:
        missing = [name for name in BUILT if not (built / name).is_file()]
        if missing:
            raise ConfigurationError(
                f"the page of the demo is not built: {built} lacks {', '.join(missing)}",
                "run `make digits` in the checkout, which needs npm",
            )
        shutil.copytree(built, folder)
    x, y = starting
    examples = [{"x": row.astype(int).tolist(), "y": int(label)} for row, label in zip(x, y, strict=True)]
    (folder / STARTING).write_text(json.dumps(examples, separators=(",", ":")))


def check_runtime(given: Path | None) -> None:
    """Raise ConfigurationError when there is no runtime for browsers to serve."""
    if given is None and installed() is None:
        raise ConfigurationError(
            "there is no runtime for browsers",
            "`pip install shoal-web`, in a checkout `make digits`, or give --web-runtime DIR",
        )
