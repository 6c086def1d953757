"""T-LoRA against its equation, sample by sample, and the way of the timestep: training, guidance, files, copies."""

import copy

import pytest
import torch
from torch import nn

import adapters
import weights
from adapters.clock import Clock
from adapters.methods.low_rank.tlora import TLoRA, frame, last_values
from dit.table import worthwhile
from recipes.models.checkpoint import checkpoint_blocks
from sampling import cfg
from tests.adapters.test_contract import attached, build, perturb

X = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
COND = {"dit": torch.tensor([0, 3, 1]), "sd": torch.tensor([[1, 5, 2], [3, 3, 5], [0, 1, 2]])}
SPEC = "tlora:rank=8,least=3"


def layer_at(t, rank=8, least=3, flow=False) -> TLoRA:
    """A trained layer 12 -> 10 whose network hears t."""
    model = nn.Module()
    model.t_embedder, model.layer = nn.Module(), nn.Linear(12, 10)
    adapters.attach(model, f"tlora:rank={rank},least={least},targets=layer", torch.Generator().manual_seed(0))
    perturb(model)
    model.layer.clock.t, model.layer.clock.flow = torch.as_tensor(t), flow
    return model.layer


def trained(backbone: str) -> nn.Module:
    model = attached(SPEC, backbone)
    perturb(model, std=0.3)
    return model.eval()


def output(model: nn.Module, backbone: str, t: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(X[: len(t)], torch.tensor(t), COND[backbone][: len(t)])


@pytest.mark.parametrize("shape", [(4, 12), (4, 7, 12), (4, 2, 3, 12)])
def test_each_sample_has_the_equation_of_its_own_timestep(shape):
    times = [0, 400, 700, 999]
    layer, x = layer_at(times), torch.randn(shape)
    out = layer(x)
    for t, one, found in zip(times, x, out):
        r = (8 - 3) * (1000 - t) // 1000 + 3
        assert r == {0: 8, 400: 6, 700: 4, 999: 3}[t]
        mask = torch.diag((torch.arange(8) < r).float())
        new = layer.tlora_up @ torch.diag(layer.tlora_values) @ mask @ layer.tlora_down
        start = layer.tlora_start_up @ torch.diag(layer.tlora_start_values) @ mask @ layer.tlora_start_down
        expected = nn.functional.linear(one, layer.weight + new - start, layer.bias)
        assert (new - start).abs().max() > 0.01
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_rank_is_the_published_one_at_every_step():
    """int(((T - t) / T) (r - r_min)) + r_min, in exact arithmetic; all ranks at 0 alone."""
    for rank, least in ((4, 2), (64, 32), (7, 0), (5, 5)):
        model = nn.Module()
        model.t_embedder, model.layer = nn.Module(), nn.Linear(70, 80)
        adapters.attach(model, f"tlora:rank={rank},least={least},targets=layer")
        model.layer.clock.t = torch.arange(1000)
        found = model.layer.tlora_mask(torch.zeros(1000, 70)).sum(1).long().tolist()
        assert found == [(rank - least) * (1000 - t) // 1000 + least for t in range(1000)]


def test_a_flow_counts_the_share_of_its_data():
    """It hears 1 - s: 0 is noise."""
    layer = layer_at([0.0, 0.5, 1.0], flow=True)
    assert layer.tlora_mask(torch.zeros(3, 12)).sum(1).tolist() == [3, 5, 8]
    model = build("dit")
    model.objective = "flow"
    adapters.attach(model, SPEC)
    assert model.t_embedder.clock.flow and model.blocks[0].attn.qkv.clock is model.t_embedder.clock


def test_it_starts_orthogonal_with_the_last_singular_values():
    layer = attached("tlora:rank=5,least=2", "dit").blocks[0].attn.qkv
    one = torch.eye(5)
    torch.testing.assert_close(layer.tlora_down @ layer.tlora_down.mT, one, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.tlora_up.mT @ layer.tlora_up, one, atol=1e-5, rtol=0)
    matrix = torch.randn(48, 16, generator=torch.Generator().manual_seed(3)) / 5
    found = last_values((48, 16), 5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, torch.linalg.svd(matrix).S[-5:])
    torch.testing.assert_close(
        found, torch.linalg.eigvalsh(matrix.mT @ matrix)[:5].flip(0).sqrt(), atol=1e-5, rtol=1e-4
    )


def test_frames_are_uniform_as_singular_vectors_are():
    """Every entry of a uniform frame has mean 0 and variance 1/width, in whatever column."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.stack([frame(6, 3, generator) for _ in range(4000)])
    assert frames.mean(0).abs().max() < 0.03 and (frames.square().mean(0) - 1 / 6).abs().max() < 0.02


@pytest.mark.parametrize("backbone", COND)
def test_noisy_samples_read_fewer_ranks_of_a_whole_network(backbone):
    """Ranks beyond r_min change nothing at the last step, and something at the first."""
    model, other = trained(backbone), trained(backbone)
    with torch.no_grad():
        for layer in [layer for layer in other.modules() if isinstance(layer, TLoRA)]:
            layer.tlora_up[:, 3:] += 1
    noisy, clean = ([output(one, backbone, [t] * 3) for one in (model, other)] for t in (999, 0))
    assert torch.equal(*noisy) and not torch.allclose(*clean, atol=1e-3)


@pytest.mark.parametrize("backbone", COND)
def test_samples_of_one_batch_have_their_own_times(backbone):
    model, times = trained(backbone), [10, 500, 990]
    together = output(model, backbone, times)
    for i, t in enumerate(times):
        with torch.no_grad():
            alone = model(X[i : i + 1], torch.tensor([t]), COND[backbone][i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", COND)
def test_guidance_stacks_the_times_with_the_samples(backbone):
    model, t, cond = trained(backbone), torch.tensor([10, 500, 990]), COND[backbone]
    null = model.null if backbone == "dit" else torch.zeros_like(cond)
    with torch.no_grad():
        found = cfg(model, cond, null, 3.0)(X, t)
        other = torch.full_like(cond, null) if backbone == "dit" else null
        own, away = model(X, t, cond), model(X, t, other)
        expected = away + 3 * (own - away)
    torch.testing.assert_close(found[:, :4], expected[:, :4], atol=1e-5, rtol=1e-5)


def test_the_text_encoder_hears_no_timestep():
    model = attached(SPEC, "sd")
    assert {name.split(".")[0] for name in adapters.trainable_parameters(model)} == {"unet"}
    for specs, message in (
        ("text.tlora", "no layer that .* in a network with timesteps"),
        ("tlora:targets=^text", "no"),
    ):
        with pytest.raises(ValueError, match=f"its rank follows the noise: {message}"):
            attached(specs, "sd")


@pytest.mark.parametrize("backbone", COND)
def test_blocks_that_are_computed_twice_have_the_time_of_their_own_forward(backbone):
    """Two forwards, as of prior preservation, before one backward pass."""
    gradients = []
    for twice in (False, True):
        model = trained(backbone).train()
        if twice:
            checkpoint_blocks(model)
        losses = [model(X, torch.tensor(t), COND[backbone]).square().mean() for t in ([5, 300, 700], [999, 999, 1])]
        sum(losses).backward()
        gradients.append({name: p.grad for name, p in adapters.trainable_parameters(model).items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("backbone", COND)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_file_has_the_start_and_a_strength(backbone, strength, tmp_path):
    model, path = trained(backbone), tmp_path / "a.safetensors"
    weights.save_adapter(path, model, {"base": weights.fingerprint(build(backbone)), "adapter": SPEC})
    loaded = weights.apply_adapters(build(backbone), [(str(path), strength)])
    assert not adapters.trainable_parameters(loaded)
    for layer, ours in zip(loaded.modules(), model.modules()):
        if isinstance(ours, TLoRA):
            layer.clock.t = ours.clock.t = torch.tensor([300])
            x = torch.randn(1, 5, ours.in_features)
            plain = nn.functional.linear(x, ours.weight, ours.bias)
            torch.testing.assert_close(layer(x), plain + strength * (ours(x) - plain), atol=1e-5, rtol=1e-5)


def test_an_untrained_file_changes_nothing_and_says_so(tmp_path):
    model, path = attached(SPEC, "dit"), tmp_path / "a.safetensors"
    weights.save_adapter(path, model, {"base": weights.fingerprint(build("dit")), "adapter": SPEC})
    with pytest.raises(ValueError, match="change nothing in this model; was it trained"):
        weights.apply_adapters(build("dit"), [(str(path), 1.0)])


def test_a_lora_file_goes_over_it(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, spec in zip(paths, (SPEC, "lora")):
        model = attached(spec, "dit")
        perturb(model)
        weights.save_adapter(path, model, {"base": weights.fingerprint(build("dit")), "adapter": spec})
    both = weights.apply_adapters(build("dit"), [(str(path), 1.0) for path in paths])
    joined = attached([SPEC, "lora"], "dit")
    tensors = {**weights.load_adapter(paths[0])[0], **weights.load_adapter(paths[1])[0]}
    assert not joined.load_state_dict(tensors, strict=False).unexpected_keys
    torch.testing.assert_close(output(both, "dit", [1, 500, 999]), output(joined, "dit", [1, 500, 999]))


def test_a_copy_of_the_network_has_a_clock_of_its_own_and_a_copy_of_a_block_none():
    model = trained("dit")
    before = output(model, "dit", [10, 500, 990])
    twin = copy.deepcopy(model)
    assert twin.t_embedder.clock is twin.blocks[0].attn.qkv.clock is not model.t_embedder.clock
    output(twin, "dit", [999, 999, 999])
    assert model.t_embedder.clock.t.tolist() == [10, 500, 990] and torch.equal(
        output(model, "dit", [10, 500, 990]), before
    )
    block = copy.deepcopy(model.blocks[0])
    with pytest.raises(ValueError, match="copied out of its network, and hears no timestep"):
        block(torch.randn(3, 4, 16), torch.randn(3, 16))


def test_the_table_of_modulations_is_left_to_embedders_without_listeners():
    """It takes the place of the embedder, which then would tell nothing."""
    assert worthwhile(build("dit"), [0, 500], [0]) and not worthwhile(attached(SPEC, "dit"), [0, 500], [0])


def test_batches_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="expected an input for each of 2 timesteps, found 3"):
        layer_at([1, 2])(torch.randn(3, 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rank=0", "needs rank >= 1 and a least rank of 0 to it, found rank 0"),
        ("rank=4,least=5", "found rank 4, least 5"),
        ("rank=17", r"cannot adapt blocks.0.attn.qkv: rank 17 for a weight of \(48, 16\)"),
        ("targets=nothing", "matched no layer"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=f"adapter tlora: .*{message}"):
        attached(f"tlora:{options}", "dit")


def test_half_of_the_rank_is_the_least_by_default():
    assert [attached(f"tlora:rank={rank}", "dit").blocks[0].attn.qkv.tlora_least for rank in (1, 5, 8)] == [1, 3, 4]
    assert Clock().t is None
