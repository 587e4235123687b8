"""Finding parts by name: ours, and those that installed packages offer."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import ClassVar

import pytest

from shoal.algorithms import registry
from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD, Adagrad, Adam, Momentum, Yogi
from shoal.algorithms.robust import Median
from shoal.algorithms.statistics import Moments
from shoal.core.errors import ConfigurationError, UnknownSetting
from shoal.core.task import Component


@dataclass(frozen=True, slots=True)
class Halved(SGD):
    """What an installed package might offer."""

    name: ClassVar[str] = "halved"
    floor: float = 0.5


@pytest.fixture
def installed(monkeypatch):
    """Pretend that a package with two entry points is installed."""
    points = EntryPoints(
        [
            EntryPoint("halved", f"{__name__}:Halved", "shoal.server_optimizers"),
            EntryPoint("sgd", f"{__name__}:Halved", "shoal.server_optimizers"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))


@pytest.mark.parametrize("part", [ExactMean(), Median(), Moments()], ids=lambda part: part.name)
def test_aggregators_round_trip_through_plain_data(part):
    assert registry.aggregator(registry.component(part)) == part


@pytest.mark.parametrize(
    "part", [SGD(0.3), Momentum(0.2, 0.1), Adagrad(0.2), Adam(beta2=0.5), Yogi(tau=0.1)], ids=lambda part: part.name
)
def test_server_optimizers_round_trip_through_plain_data(part):
    built = registry.server_optimizer(registry.component(part))
    assert built == part
    assert type(built) is type(part)


def test_a_component_is_the_name_and_the_fields():
    assert registry.component(Momentum(0.5, 0.8)) == Component("momentum", {"lr": 0.5, "beta": 0.8})


def test_options_that_are_not_given_take_their_defaults():
    assert registry.server_optimizer(Component("adam", {"lr": 0.5})) == Adam(lr=0.5)


def test_an_unknown_name_suggests_the_near_one():
    with pytest.raises(ConfigurationError, match=r"no part 'medain' in shoal.aggregators.*did you mean 'median'\?"):
        registry.aggregator(Component("medain"))


def test_an_unknown_name_that_is_near_nothing_lists_what_there_is():
    with pytest.raises(ConfigurationError) as caught:
        registry.server_optimizer(Component("os.system"))
    assert "adagrad, adam, feddyn, momentum, sgd, yogi" in caught.value.fix
    assert "did you mean" not in caught.value.fix


def test_aggregators_are_no_server_optimizers():
    with pytest.raises(ConfigurationError, match=r"no part 'mean' in shoal.server_optimizers"):
        registry.server_optimizer(Component("mean"))


def test_an_unknown_option_suggests_the_near_one():
    with pytest.raises(UnknownSetting, match=r"momentum has no option 'bta'.*did you mean 'beta'\?"):
        registry.server_optimizer(Component("momentum", {"bta": 0.9}))


@pytest.mark.parametrize("option", ["name", "__class__", "init"])
def test_only_fields_are_options(option):
    with pytest.raises(UnknownSetting, match=option):
        registry.server_optimizer(Component("sgd", {option: 1.0}))


def test_an_installed_package_offers_a_part(installed):
    assert registry.server_optimizer(Component("halved", {"lr": 2.0})) == Halved(2.0, 0.5)
    with pytest.raises(UnknownSetting, match="did you mean 'floor'"):
        registry.server_optimizer(Component("halved", {"flor": 2.0}))


def test_an_installed_package_cannot_take_one_of_our_names(installed):
    assert type(registry.server_optimizer(Component("sgd"))) is SGD


def test_installed_names_are_suggested_too_and_only_in_their_group(installed):
    with pytest.raises(ConfigurationError, match="did you mean 'halved'"):
        registry.server_optimizer(Component("halve"))
    with pytest.raises(ConfigurationError, match=r"no part 'halved' in shoal.aggregators"):
        registry.aggregator(Component("halved"))
