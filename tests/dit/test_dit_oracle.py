"""A DiT equals its equations written out, head by head and patch by patch, with other words for every operation."""

import math

import torch

from dit import DiT, DiTConfig

D, N, P, SIDE, C = 24, 3, 2, 4, 3


def made():
    """A small DiT in float64 whose every weight is random, so that nothing is hidden behind a zero."""
    torch.manual_seed(0)
    model = DiT(DiTConfig(depth=2, width=D, heads=N, patch=P, input_size=SIDE, in_channels=C, num_classes=5)).double()
    for name, parameter in model.named_parameters():
        if name != "pos_embed":
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def norm(x):
    """(x - mean) / sqrt(var + 1e-6) over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-6).sqrt()


def gelu(x):
    """By its tanh."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + torch.exp(-x))


def written_out(w, x, t, y):
    """One sample x (C, SIDE, SIDE) at the step t with the class y -> (2 C, SIDE, SIDE); w: the state dict."""

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    places = [(row, column) for row in range(SIDE // P) for column in range(SIDE // P)]
    kernel = w["x_embedder.proj.weight"].reshape(D, -1)
    patches = [x[:, P * row : P * row + P, P * column : P * column + P].reshape(-1) for row, column in places]
    tokens = torch.stack(patches) @ kernel.T + w["x_embedder.proj.bias"]
    omega = [10000 ** (-j / (D // 4)) for j in range(D // 4)]

    def axis(position):
        return [math.sin(position * o) for o in omega] + [math.cos(position * o) for o in omega]

    tokens = tokens + torch.tensor([axis(column) + axis(row) for row, column in places], dtype=torch.float64)
    rates = [math.exp(-math.log(10000) * i / 128) for i in range(128)]
    sinusoid = torch.tensor([math.cos(t * f) for f in rates] + [math.sin(t * f) for f in rates], dtype=torch.float64)
    c = (
        linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", sinusoid)))
        + w["y_embedder.embedding_table.weight"][y]
    )
    for i in range(2):
        block = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"{block}.adaLN_modulation.1", silu(c)).reshape(6, D)
        h = linear(f"{block}.attn.qkv", norm(tokens) * (1 + scale1) + shift1)
        heads = []
        for n in range(N):
            q, k, v = (h[:, part * D + n * D // N : part * D + (n + 1) * D // N] for part in range(3))
            heads.append((q @ k.T / math.sqrt(D // N)).softmax(1) @ v)
        tokens = tokens + gate1 * linear(f"{block}.attn.proj", torch.cat(heads, 1))
        h = norm(tokens) * (1 + scale2) + shift2
        tokens = tokens + gate2 * linear(f"{block}.mlp.fc2", gelu(linear(f"{block}.mlp.fc1", h)))
    shift, scale = linear("final_layer.adaLN_modulation.1", silu(c)).reshape(2, D)
    last = linear("final_layer.linear", norm(tokens) * (1 + scale) + shift)
    out = torch.empty(2 * C, SIDE, SIDE, dtype=torch.float64)
    for token, (row, column) in zip(last, places):
        out[:, P * row : P * row + P, P * column : P * column + P] = token.reshape(P, P, 2 * C).permute(2, 0, 1)
    return out


def test_it_is_the_equations_written_out():
    model = made()
    x = torch.randn(2, C, SIDE, SIDE, dtype=torch.float64)
    t, y = torch.tensor([7, 40]), torch.tensor([4, model.null])
    with torch.no_grad():
        out = model(x, t, y)
    expected = [written_out(model.state_dict(), x[i], t[i].item(), y[i].item()) for i in range(2)]
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-5)  # the tables are float32
