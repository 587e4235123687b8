import re
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.core.errors import ConfigurationError
from shoal.store import failpoints

ROOT = Path(__file__).parents[2]
DIES = "from shoal.store.failpoints import arm, reached; arm('{armed}'); {places}; print('alive')"


def end(armed: str, *places: str) -> tuple[int, str]:
    code = DIES.format(armed=armed, places="; ".join(f"reached('{place}')" for place in places))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.processes
def test_a_process_dies_at_its_place_the_nth_time_and_says_nothing():
    assert end("after_blob:2", "after_blob", "before_ack", "after_blob") == (137, "")
    assert end("after_blob:2", "after_blob", "before_ack") == (0, "alive\n")


@pytest.mark.parametrize("armed", ["nowhere", "after_blob:0", "after_blob:x", ":2x"])
def test_a_place_that_is_not_there_is_an_error_naming_those_that_are(armed: str):
    if armed.startswith(":"):
        failpoints.arm(armed)  # no place: nothing is armed
        failpoints.reached("after_blob")
        return
    with pytest.raises(ConfigurationError, match=f"SHOAL_FAILPOINT={armed}.*mid_load, after_enrol"):
        failpoints.arm(armed)


def test_every_place_is_on_its_page_and_in_the_code():
    page = (ROOT / "docs/chaos.md").read_text()
    listed = page.partition("The places are\n")[2].partition("\nand ")[0].replace("\n", " ").strip()
    assert listed.split(", ") == list(failpoints.PLACES)
    code = "".join(path.read_text() for path in (ROOT / "src/shoal").rglob("*.py"))
    assert set(re.findall(r'\breached\("(\w+)"\)', code)) == set(failpoints.PLACES)
