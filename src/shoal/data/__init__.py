"""Tables of numbers: reading, writing, splitting and dealing them out; numpy only."""

from shoal.data.boston import boston_housing as boston_housing
from shoal.data.boston import boston_table as boston_table
from shoal.data.split import deal as deal
from shoal.data.split import split as split
from shoal.data.tables import Table as Table
from shoal.data.tables import read_csv as read_csv
from shoal.data.tables import write_csv as write_csv
