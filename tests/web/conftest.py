from collections.abc import Iterator
from dataclasses import replace

import pytest

from shoal.researcher.coordinator import Coordinator
from shoal.researcher.run import Run
from shoal.testing.server_process import ServerProcess
from tests.web.browser import ELSEWHERE, RUNTIME, Browser, make_page
from tests.web.joined import EPOCHS, TASK


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for all tests of a process, which finds this machine under another name too."""
    with Browser(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1") as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("browser")
    page = make_page(folder / "page")
    running = ServerProcess(
        folder / "home",
        folder / "log",
        "--page",
        str(page),
        "--allow-origin",
        "http://app.localhost",
        "--web-runtime",
        str(RUNTIME),
    )
    with running:
        running.start()
        yield running


@pytest.fixture(scope="session")
def coordinator(server: ServerProcess) -> Iterator[Coordinator]:
    with Coordinator.connect(server.url, token=server.admin_token) as connected:
        yield connected


@pytest.fixture(scope="session")
def rounds(coordinator: Coordinator) -> Run:
    """A task whose every round takes one device."""
    task = replace(TASK, name="rounds", local=replace(TASK.local, epochs=EPOCHS))
    return coordinator.publish(task, rounds=1000, goal=1, plan=True)
