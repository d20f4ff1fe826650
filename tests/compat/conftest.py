import pytest

from tests.compat.studio import Studio
from tests.support import Api


@pytest.fixture
def studio(api: Api) -> Studio:
    return Studio(api)
