"""AdamW in one launch takes torch's steps: by the interpreter here, where there is no card, and by any card."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import pcgraph
from pcgraph.training import FusedAdamW

pytest.importorskip("triton")

SHAPES = ((7, 11), (3, 5, 2), (600,), (1,), ())


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    from pcgraph.backends.triton import adamw

    if type(adamw.adamw).__name__ != "InterpretedFunction":
        pytest.skip("the kernels were imported without TRITON_INTERPRET=1")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of parameters of each launch."""
    from pcgraph.backends.triton.adamw import AdamWStep

    found: list[int] = []
    original = AdamWStep.__call__

    def call(self: AdamWStep, columns: Any, group: Any) -> None:
        found.append(len(columns[0]))
        original(self, columns, group)

    monkeypatch.setattr(AdamWStep, "__call__", call)
    return found


def pair(device: str, dtype: torch.dtype, **settings: Any) -> tuple[FusedAdamW, torch.optim.AdamW]:
    """Both optimizers over the same parameters, in two groups with decays of their own."""
    generator = torch.Generator().manual_seed(0)
    own = [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype).to(device)) for s in SHAPES]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in own]
    groups = [[{"params": ps[:2]}, {"params": ps[2:], "weight_decay": 0.3}] for ps in (own, theirs)]
    return FusedAdamW(groups[0], **settings), torch.optim.AdamW(groups[1], **settings)


def gradients(optimizers: tuple[Any, ...], seed: int, none: int | None = None, zero: int | None = None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for i, shape in enumerate(SHAPES):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * (0.0 if i == zero else 1.0)
        for optimizer in optimizers:
            p = [p for group in optimizer.param_groups for p in group["params"]][i]
            p.grad = None if i == none else torch.empty_like(p).copy_(drawn)  # laid out as autograd does


def apart(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> float:
    """How far parameters and states are apart, relative to how large they are."""
    worst = 0.0
    for one, other in zip(*([p for g in o.param_groups for p in g["params"]] for o in (a, b))):
        pairs = [(one.detach(), other.detach()), *((a.state[one][k], b.state[other][k]) for k in b.state[other])]
        assert a.state[one].keys() == b.state[other].keys()
        for x, y in pairs:
            worst = max(worst, float(((x - y).abs() / (y.abs() + 1e-3)).max()))
    return worst


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.2}, {"betas": (0.0, 0.9)},
        {"betas": (0.9, 0.0), "eps": 1e-2},
    ],
)  # fmt: skip
def test_steps_are_torchs_in_float64(settings: dict[str, Any], launches: list[int]) -> None:
    own, theirs = pair("cpu", torch.float64, **settings)
    for seed in range(4):
        gradients((own, theirs), seed, none=1 if seed == 2 else None, zero=2)
        own.step()
        theirs.step()
    assert launches == [2, 3, 2, 3, 1, 3, 2, 3]
    assert apart(own, theirs) < 1e-5  # a launch takes rates and betas in float32


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("count", "alone"), [(32, 32), (33, 0)])
def test_a_recording_whose_gradients_lie_elsewhere_moves_few_parameters_one_by_one(
    monkeypatch: pytest.MonkeyPatch, count: int, alone: int
) -> None:
    from pcgraph.backends.triton import adamw, optimizer

    parameters = [torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(count)]
    others = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    own, theirs = FusedAdamW(parameters, lr=0.1), torch.optim.AdamW(others, lr=0.1)
    for p in (*parameters, *others):
        p.grad = torch.full_like(p, 0.5)
    launched: list[int] = []
    original = adamw._launch

    def launch(lie: Any, programs: int, table: Any, *rest: Any, **options: Any) -> None:
        launched.append(table)
        original(lie, programs, table, *rest, **options)

    monkeypatch.setattr(adamw, "_launch", launch)
    monkeypatch.setattr(optimizer, "_recording", lambda _: True)
    own.step()
    theirs.step()
    assert launched == [3] * alone
    assert apart(own, theirs) < 1e-5


@pytest.mark.usefixtures("interpreted")
def test_parameters_one_by_one_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from pcgraph.backends.triton.adamw import one_by_one

    own, theirs = pair("cpu", torch.float64, lr=torch.tensor(0.1, dtype=torch.float64), weight_decay=0.2)
    for group in theirs.param_groups:
        group["fused"] = True
    monkeypatch.setattr(own, "_launch", lambda *_: one_by_one)
    for seed in range(3):
        gradients((own, theirs), seed, none=1 if seed == 2 else None)
        own.step()
        theirs.step()
    assert apart(own, theirs) < 1e-5


@pytest.mark.usefixtures("interpreted")
def test_a_rate_in_a_tensor_and_schedulers_count(launches: list[int]) -> None:
    own, theirs = pair("cpu", torch.float32, lr=torch.tensor(0.05))
    for optimizer in (own, theirs):
        for group in optimizer.param_groups:
            group["fused"] = True  # torch takes a rate in a tensor so alone
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.1) for o in (own, theirs)]
    for seed in range(3):
        gradients((own, theirs), seed)
        own.step()
        theirs.step()
        for scheduler in schedulers:
            scheduler.step()
    assert len(launches) == 6
    assert apart(own, theirs) < 1e-4


@pytest.mark.usefixtures("interpreted")
def test_either_goes_on_from_the_state_of_the_other(launches: list[int]) -> None:
    own, theirs = pair("cpu", torch.float32)
    gradients((own, theirs), 0)
    own.step()
    theirs.step()
    kept = copy.deepcopy(own.state_dict())
    own.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(kept)
    gradients((own, theirs), 1)
    own.step()
    theirs.step()
    assert apart(own, theirs) < 1e-4
    assert copy.deepcopy(own).state_dict().keys() == own.state_dict().keys()


@pytest.mark.usefixtures("interpreted")
def test_groups_of_one_parameter_each_have_launches_of_their_own(launches: list[int]) -> None:
    """What lies alike, relative to its first, may be of another size."""
    found = []
    for make in (FusedAdamW, torch.optim.AdamW):
        parameters = [torch.nn.Parameter(torch.ones(n)) for n in (3, 700)]
        optimizer = make([{"params": [p]} for p in parameters], lr=0.1)
        for p in parameters:
            p.grad = torch.linspace(-1, 1, len(p))
        optimizer.step()
        found.append(torch.cat([p.detach() for p in parameters]))
    assert launches == [1, 1]
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("how", ["transposed", "amsgrad", "half", "scaled"])
def test_what_no_launch_can_do_is_torchs_step(how: str, launches: list[int]) -> None:
    own, theirs = pair("cpu", torch.bfloat16 if how == "half" else torch.float32)
    if how == "transposed":
        for optimizer in (own, theirs):
            p = optimizer.param_groups[0]["params"][0]
            p.data = p.data.t().contiguous().t()
    if how == "amsgrad":
        for group in (*own.param_groups, *theirs.param_groups):
            group["amsgrad"] = True
    if how == "scaled":
        for optimizer in (own, theirs):
            optimizer.grad_scale = torch.tensor(2.0)  # as torch's GradScaler does
            for group in optimizer.param_groups:
                group["fused"] = True
    gradients((own, theirs), 0)
    own.step()
    theirs.step()
    assert launches == ([3] if how == "transposed" else [])
    assert apart(own, theirs) < (1e-2 if how == "half" else 1e-5)


def test_without_triton_it_is_torchs_step(monkeypatch: pytest.MonkeyPatch, launches: list[int]) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    own, theirs = pair("cpu", torch.float32)
    gradients((own, theirs), 0)
    own.step()
    theirs.step()
    assert launches == []
    assert apart(own, theirs) < 1e-5


def test_a_closure_is_called_with_gradients_on() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedAdamW([p])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert (p < 1).all()


@pytest.mark.gpu
def test_a_recorded_training_takes_one_launch_and_the_steps_of_torch(device: str, launches: list[int]) -> None:
    """The steps of a recording cannot be counted; the launch is in it, since a new table would not be."""
    if torch.device(device).type != "cuda":
        pytest.skip("no recording without a card")
    nets = [pcgraph.PCNetwork(pcgraph.graphs.chain([20, 32, 10]), seed=0, device=device) for _ in range(2)]
    batch = {"x": torch.rand(64, 20, device=device), "y": torch.eye(10, device=device)[torch.arange(64) % 10]}
    for net, make in zip(nets, (FusedAdamW, torch.optim.AdamW)):
        more = {} if make is FusedAdamW else {"fused": True, "capturable": True}
        pcgraph.fit(
            net, [batch] * 8, init=pcgraph.Forward(), steps=3, state_optimizer=pcgraph.SGD(0.1), epochs=1,
            optimizer=make(net.parameters(), lr=1e-2, **more), progress=False, capture=True, check=False,
        )  # fmt: skip
    assert launches
    assert set(launches) == {len(list(nets[0].parameters()))}
    assert len(launches) == 5  # the first step, three as they are, and one that is recorded
    for a, b in zip(*(net.parameters() for net in nets)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
