"""Every chip call of these tests runs on the strict machine."""

import pytest

from tvm_ergo.target.environment import STRICT


@pytest.fixture(scope="session", autouse=True)
def strict_machine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STRICT.name, "1")
        yield
