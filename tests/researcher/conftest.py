from tests.agent.conftest import federation as federation
