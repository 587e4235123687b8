"""Laws that every implementation of a part must keep, for the tests of your own ones.

    from shoal.testing.laws import aggregator_laws

    def test_my_aggregator():
        aggregator_laws(MyAggregator())

Each function returns when all laws hold and raises AssertionError, saying which one does not, otherwise. They need
Hypothesis (`pip install hypothesis`), whose active profile says how many examples are tried.
"""

from shoal.testing.aggregators import EVERY_LAW as EVERY_LAW
from shoal.testing.aggregators import AggregatorLaw as AggregatorLaw
from shoal.testing.aggregators import aggregator_laws as aggregator_laws
from shoal.testing.aggregators import updates as updates
from shoal.testing.blobs import blobs_laws as blobs_laws
from shoal.testing.stores import store_laws as store_laws
