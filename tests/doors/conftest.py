"""Every chip call of these tests runs on the strict machine."""

import pytest

from tvm_ergo.codegen.runtime.launcher import STRICT_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def strict_machine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STRICT_VARIABLE, "1")
        yield
