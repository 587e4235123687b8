from pathlib import Path

import pytest

from shoal.agent.code import load_data, load_task
from shoal.core.errors import ConfigurationError

CODE = """
import numpy as np
from torch import nn
from shoal.train.task import Task

def task(features):
    return Task("made", nn.Linear(features, 1), nn.functional.mse_loss)

def plain():
    return task(2)

fixed = task(5)
number = 7

def data():
    return np.ones((4, 3)), np.zeros(4)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "owner.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize(("attribute", "features"), [("", 13), (":task", 13), (":plain", 2), (":fixed", 5)])
def test_a_task_or_a_function_that_makes_one(file: Path, attribute: str, features: int):
    loaded = load_task(f"{file}{attribute}", features=13)
    assert loaded.model.in_features == features


def test_the_data_in_the_file(file: Path):
    data = load_data(f"{file}:fixed")
    assert (data.rows, data.features) == (4, 3)
    assert sorted(data.examples({})) == ["x", "y"]


def test_what_is_missing_is_named(file: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"no Python file .*absent.py"):
        load_task(str(tmp_path / "absent.py"), 1)
    with pytest.raises(ConfigurationError, match=r"has no 'fixd': it has .*\(did you mean 'fixed'\?\)"):
        load_task(f"{file}:fixd", 1)
    with pytest.raises(ConfigurationError, match=r"'number' in .* is a int"):
        load_task(f"{file}:number", 1)


def test_a_file_that_cannot_be_imported_is_named(file: Path):
    file.write_text("import torch_that_is_not_there")
    with pytest.raises(ConfigurationError, match="No module named 'torch_that_is_not_there'"):
        load_task(str(file), 1)
    file.write_text("x = 1\ndef task(:")
    with pytest.raises(ConfigurationError, match=r"\.py line 2: invalid syntax: def task\(:: correct that line"):
        load_task(str(file), 1)


def test_an_error_in_the_owners_code_is_located_in_it(file: Path):
    file.write_text("import json\n\ndef task():\n    return json.loads('[')\n\ndata = task")
    for load in (lambda: load_task(str(file), 1), lambda: load_data(str(file))):
        with pytest.raises(ConfigurationError, match=r"\.py line 4: JSONDecodeError: Expecting value"):
            load()


def test_a_file_without_data_says_so(file: Path):
    file.write_text("task = 1")
    with pytest.raises(ConfigurationError, match="has no 'data'"):
        load_data(str(file))
