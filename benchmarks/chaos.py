"""Kill the coordinator again and again while devices train; show that nothing is lost, doubled or changed.

    python benchmarks/chaos.py --kills 100 --seed 1 --mode both

The last line is one JSON object; the exit code is 1 when something was lost, doubled or changed. With --keep, the
homes and the coordinator's log stay in a folder.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from shoal.testing.chaos import run
from shoal.testing.nursery import Nursery
from shoal.testing.postgres import PostgresProcess


@contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
    else:
        keep.mkdir(parents=True)
        yield keep


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill the coordinator while devices train, and audit what is left.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("points", "random", "both", "takeovers"), default="both")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder that stays")
    parser.add_argument("--postgres", action="store_true", help="keep the store in a PostgreSQL server of its own")
    parser.add_argument("--forked", action="store_true", help="fork coordinators, which spares each its imports")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(folder(options.keep))
        database = stack.enter_context(PostgresProcess()).database() if options.postgres else ""
        nursery = stack.enter_context(Nursery()) if options.forked else None
        outcome = run(
            here, kills=options.kills, seed=options.seed, mode=options.mode, database=database, nursery=nursery
        )
    print(json.dumps(asdict(outcome)))
    sys.exit(0 if outcome.sound else 1)


if __name__ == "__main__":
    main()
