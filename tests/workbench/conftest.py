"""Run folders for the workbench's tests."""

from pathlib import Path

import pytest

from tests.workbench.deep import write_deep_run
from tests.workbench.synthetic import write_run
from tests.workbench.variants import write_variants


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs with experts and one that was interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder, "moelora", drift=0.5)
    write_run(folder, "same", drift=0.2)
    write_run(folder, "same", seed=1, drift=0.2)
    write_run(folder, "lora", drift=0.6, finished=3, state="interrupted")
    return folder


@pytest.fixture(scope="session")
def deep_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs whose snapshots hold audit, spectra, probes and scores of experts, with re-routings."""
    folder = tmp_path_factory.mktemp("deep")
    for method, drift in (("moelora", 0.4), ("same", 0.15), ("same_plus", 0.05)):
        write_deep_run(folder, method, drift)
    return folder


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs that differ in a setting, the seed or the order of tasks."""
    folder = tmp_path_factory.mktemp("variants")
    write_variants(folder)
    return folder
