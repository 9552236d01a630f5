"""A Helm for the tests of the chart, unpacked once."""

import shutil
from collections.abc import Iterator

import pytest
from helm_cli import VALUES, Document, Helm, unpack


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    folder = tmp_path_factory.mktemp("helm")
    yield Helm(unpack(folder), folder)
    shutil.rmtree(folder)  # 60 MB


@pytest.fixture(scope="session", params=VALUES, ids=lambda path: path.stem)
def documents(helm: Helm, request: pytest.FixtureRequest) -> list[Document]:
    """What each of the chart's example values installs."""
    return helm.template(request.param)
