"""Pieces of HTML for notebooks: escaped, small, and with nothing to load from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

MOST_ROWS = 50
"""Rows that a table shows; of more it shows the last ones, and says how many there are."""

MOST_LETTERS = 120
"""Letters that a cell shows."""

DIGEST_LETTERS = 12


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table of text under heads. Numbers have five digits, and texts are cut."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    shown = rows[-MOST_ROWS:]
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in shown)
    more = f"<p>the last {len(shown)} of {len(rows)} rows</p>" if len(rows) > len(shown) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def facts(title: str, told: Mapping[str, object]) -> str:
    """Return a table of two columns, what and its value, under a title; what is None or empty is left out."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{cell(value)}</td></tr>"
        for name, value in told.items()
        if value is not None and value != "" and value != {} and value != ()
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>"


def cell(value: object) -> str:
    """Return a value as escaped text."""
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.5g}"
        case Mapping():
            return ", ".join(f"{escape(str(name))} {cell(each)}" for name, each in value.items())
        case str():
            return escape(value if len(value) <= MOST_LETTERS else f"{value[:MOST_LETTERS]}…")
        case Iterable():
            return ", ".join(map(cell, value))
    return escape(str(value))


def short(digest: str) -> str:
    """Return the beginning of a digest, which tells versions of one run apart."""
    return digest[:DIGEST_LETTERS]
