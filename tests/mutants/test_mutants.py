"""Every list of faults: the tests pass without one, each is noticed, and each can still be planted."""

import pytest

from tests import ROOT
from tests.mutants import engine, fused, network, runs, topology
from tests.mutants.planted import assert_can_be_planted, survives

LISTS = {"engine": engine, "fused": fused, "network": network, "runs": runs, "topology": topology}
MUTANTS = [
    pytest.param(mutant, id=f"{name}-{mutant.name}") for name, faults in LISTS.items() for mutant in faults.MUTANTS
]


@pytest.mark.mutants
@pytest.mark.parametrize("name", LISTS)
def test_the_tests_pass_without_a_fault(name, tmp_path):
    """Else every mutant would seem killed."""
    passed, printed = survives(None, tmp_path, tuple(dict.fromkeys(LISTS[name].FILES.values())))
    assert passed, printed


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_suite_notices(mutant, tmp_path):
    survived, printed = survives(mutant, tmp_path)
    assert not survived, f"{mutant.name}: no test noticed\n{printed}"


def test_every_reason_to_refuse_a_plan_has_its_fault():
    """A refusal that no fault takes away might as well not be there."""
    source = (ROOT / "pcgraph" / engine.VERIFY).read_text(encoding="utf-8")
    assert source.count("raise _Wrong(") == len((*engine.REFUSALS, *engine.ACROSS, engine.JOINT))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_fault_can_still_be_planted(mutant, tmp_path):
    assert_can_be_planted(mutant, tmp_path)
