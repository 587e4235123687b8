"""Append to a store without end; print each position once it is durable. Started by test_sql_killed."""

import sys

from shoal.rounds.events import Recorded, Reported
from shoal.store.sql import SqlStore
from shoal.store.store import Entry

WINDOW = 16


def entry(number: int, epoch: int) -> Entry:
    digest = f"{number:064x}"
    event = Reported(f"a{number}", "zoe", digest, number, 1)
    return Entry("task", [Recorded(float(number), event)], number, epoch, {digest: digest.encode() * 20})


def main(path: str) -> None:
    store = SqlStore(path)
    epoch, number = store.lead("task"), 0
    while True:
        futures = [store.submit(entry(number + step, epoch)) for step in range(WINDOW)]
        number += WINDOW
        for future in futures:
            sys.stdout.write(f"{future.result(30)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
