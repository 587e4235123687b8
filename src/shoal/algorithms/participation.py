"""Telling a strategy which share of all clients takes part in a round, where its paper needs that."""

from dataclasses import replace

from shoal.algorithms.feddyn import DynamicServer
from shoal.algorithms.scaffold import Controlled
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import TaskError


def taking_part(strategy: Strategy, share: float) -> Strategy:
    """Return the strategy with the share filled in, unless it was given one."""
    rule, server = strategy.rule, strategy.server
    if isinstance(rule, Controlled) and rule.participation == 0:
        return replace(strategy, rule=replace(rule, participation=share))
    if isinstance(server, DynamicServer) and server.participation == 0:
        return replace(strategy, server=replace(server, participation=share))
    return strategy


def check_participation(strategy: Strategy) -> None:
    """Raise TaskError when a strategy lacks the share that its paper needs, or has one that is none."""
    rule, server = strategy.rule, strategy.server
    shares = [part.participation for part in (rule, server) if isinstance(part, Controlled | DynamicServer)]
    for share in shares:
        if not 0 < share <= 1:
            raise TaskError(
                f"strategy {strategy.name!r} with participation={share}",
                f"say which share of all devices takes part in a round: shoal.{strategy.name}(participation=...)",
            )
