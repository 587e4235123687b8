"""Histograms and quantiles of columns over agents at a real coordinator, against numpy on the pooled rows."""

import numpy as np

from shoal.agent.policy import Policy
from tests.agent.federation import Federation
from tests.agent.test_statistics import COLUMNS, VALUES, table

OPEN = Policy(distributions=True)


def test_histogram_and_quantiles_of_two_owners_equal_numpys_on_the_pooled_rows(federation: Federation):
    federation.start("bob", table(0), code=None, policy=OPEN)
    federation.start("alice", table(1), code=None, policy=OPEN)
    found = federation.researcher.statistics(COLUMNS, goal=2, histogram=5, quantiles=(0.25, 0.5, 1.0), tolerance=1e-6)
    np.testing.assert_allclose(found.variance, VALUES.var(0, ddof=1), rtol=1e-12)
    for column in range(3):
        assert found.counts[column].tolist() == np.histogram(VALUES[:, column], found.edges[column])[0].tolist()
    spread = np.ptp(VALUES, axis=0)[:, None]
    expected = np.quantile(VALUES, (0.25, 0.5, 1.0), axis=0).T
    assert (np.abs(found.quantiles - expected) <= 1e-6 * spread).all()
    said = federation.said.until("releasing to statistics-histogram-1 pass 1")
    assert "pass 1: counts in 5 bins of 3 columns over 20 rows" in said
    passes = [(release.task, release.round) for release in federation.home("bob").releases()]
    assert passes == [
        ("statistics-1", 1),
        ("statistics-1", 2),
        ("statistics-histogram-1", 1),
        *(("statistics-quantiles-1", number) for number in (1, 2, 3, 4)),
    ]


def test_edges_may_be_given(federation: Federation):
    federation.start("bob", table(0), code=None, policy=OPEN)
    edges = [30.0, 40.0, 50.0]
    found = federation.researcher.statistics(COLUMNS[:1], goal=1, histogram=edges)
    assert found.edges.tolist() == [edges]
    assert found.counts[0].tolist() == np.histogram(VALUES[::2, 0], edges)[0].tolist()
