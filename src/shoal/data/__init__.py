"""Tables and data sets: reading, loading, drawing and dealing them out; numpy only, others where installed."""

from shoal.data.adapters import by_owner as by_owner
from shoal.data.adapters import from_dataset as from_dataset
from shoal.data.adapters import from_huggingface as from_huggingface
from shoal.data.adapters import from_pandas as from_pandas
from shoal.data.boston import boston_housing as boston_housing
from shoal.data.boston import boston_table as boston_table
from shoal.data.digits import digits as digits
from shoal.data.loaders import breast_cancer as breast_cancer
from shoal.data.loaders import diabetes as diabetes
from shoal.data.partition import Partition as Partition
from shoal.data.partition import by_id as by_id
from shoal.data.partition import by_quantity as by_quantity
from shoal.data.partition import dirichlet as dirichlet
from shoal.data.partition import feature_shift as feature_shift
from shoal.data.partition import iid as iid
from shoal.data.partition import shards as shards
from shoal.data.split import deal as deal
from shoal.data.split import split as split
from shoal.data.synthetic import FemnistLike as FemnistLike
from shoal.data.synthetic import ShakespeareLike as ShakespeareLike
from shoal.data.tables import Table as Table
from shoal.data.tables import read_csv as read_csv
from shoal.data.tables import write_csv as write_csv
