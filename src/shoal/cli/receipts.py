"""`shoal agent receipts`: what a coordinator signed for, out of the device's own home."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.ending import reported
from shoal.cli.options import Json
from shoal.cli.output import print_json

if TYPE_CHECKING:
    from shoal.core.receipt import Receipt

DeviceHome = Annotated[Path, typer.Option("--home", help="Folder of the device.")]
Verify = Annotated[bool, typer.Option("--verify", help="Check every signature; exit with 1 when one is wrong.")]


@reported
def receipts(home: DeviceHome, verify: Verify = False, as_json: Json = False) -> None:
    """List the receipts that a device holds, and check who signed them.

    With --verify each is checked against the key that the device pinned when it enrolled, and against the digests
    of what it released.
    """
    from shoal.agent import home as homes

    home = home.expanduser()
    released = {release.digest for release in homes.released(home) if release.kind != "refused"}
    key = homes.pinned_key(home) if verify else ""
    found = [(receipt, _verdict(key, receipt, released) if verify else "") for receipt in homes.receipts(home)]
    for receipt, verdict in found:
        _print(receipt, verdict, as_json)
    if verify:
        _conclude(Counter(verdict for _, verdict in found), as_json)


def _verdict(key: str, receipt: "Receipt", released: set[str]) -> str:
    from shoal.core.errors import WrongReceipt
    from shoal.wire.receipts import check

    if receipt.digest not in released:
        return "nothing with this digest was released here"
    try:
        check(key, receipt)
    except WrongReceipt:
        return "not signed with the pinned key"
    return "ok"


def _print(receipt: "Receipt", verdict: str, as_json: bool) -> None:
    if as_json:
        line = {"assignment": receipt.assignment, "digest": receipt.digest, "accepted_at": receipt.accepted_at}
        print_json({**line, "signature": receipt.signature, **({"verdict": verdict} if verdict else {})})
        return
    typer.echo(f"{receipt.assignment}  {receipt.accepted_at:.3f}  {receipt.digest}  {verdict}".rstrip())


def _conclude(verdicts: "Counter[str]", as_json: bool) -> None:
    good, total = verdicts["ok"], verdicts.total()
    if as_json:
        print_json({"receipts": total, "verified": good})
    else:
        typer.echo(f"{good} of {total} receipts verified")
    if good != total:
        raise typer.Exit(1)
