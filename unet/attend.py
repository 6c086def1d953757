"""Attend-and-Excite: before a sampling step, move the latent until some place attends to each named word of the prompt.

Chefer et al. 2023, arXiv 2301.13826. A (T, L) is the cross-attention of T places to L tokens, the mean over heads and
layers, and G a 3x3 Gaussian. The softmax leaves out the first and the last token of each chunk of the prompt:

    P_w  = sum over the tokens of the word w of softmax(100 A) over all tokens                           (T,)
    loss = max over the words of (1 - max over the places of G * P_w)
    z   <- z - alpha grad_z loss,     alpha = 20 sqrt(1 - i / (2 (S - 1))) at step i of S, for i < S / 2

At steps 0, 10 and 20 of 50 the update repeats while a word is below the threshold 0.05, 0.5 or 0.8, at most 20 times.
The paper's words have one token. The parts of a longer word compete in the softmax, so only their sum can come near 1.
Nothing is trained, and the model is left as it was. Each of these steps costs one more pass forward and backward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from unet.block import Attention, TransformerBlock
from unet.conditioned import TextConditioned
from unet.model import UNet
from unet.text.bytepair import WORD_END
from unet.text.prompt import chunks
from unet.text.tokenizer import Tokenizer

ATTENTION_SIDE = 16  # of the maps in the paper: those of level 2 of Stable Diffusion, at 512 pixels
THRESHOLDS = {0: 0.05, 10: 0.5, 20: 0.8}  # step of 50 -> attention that every word must reach there
MAX_REFINEMENTS = 20
DECAY = torch.tensor([[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]).neg().exp()  # exp(-distance^2)
GAUSSIAN = DECAY / DECAY.sum()  # the released kernel, called sigma 0.5 there; its exponent is half of that sigma's

Update = Callable[[Tensor, int], Tensor]  # (latents before a step, its timestep) -> latents


def attend_and_excite(
    model: TextConditioned, cond: Tensor, words: Sequence[Sequence[list[int]]], steps: Sequence[int]
) -> Callable[[slice], Update]:
    """on_step(here): the update before each step of the samples numbered `here`, each by itself; for sample_latents.

    cond (N, L, D) text states; words: for each sample the token indices of each word; steps: timesteps of the sampler.
    """
    step_of = {t: i for i, t in enumerate(sorted(steps, reverse=True))}
    count = len(steps)
    thresholds = {i * count // 50: threshold for i, threshold in THRESHOLDS.items()}

    def on_step(here: slice) -> Update:
        rows = zip(cond[here].split(1), words[here], strict=True)
        losses = [partial(attention_loss, model, cond=c, words=w) for c, w in rows]

        def update(z: Tensor, t: int) -> Tensor:
            i = step_of[t]
            if 2 * i >= count:
                return z
            alpha, threshold = 20 * (1 - i / (2 * max(count - 1, 1))) ** 0.5, thresholds.get(i, 0.0)
            rows = zip(z.split(1), losses, strict=True)
            return torch.cat([update_latent(row, partial(loss, t=t), alpha, threshold) for row, loss in rows])

        return update

    return on_step


def update_latent(z: Tensor, loss: Callable[[Tensor], Tensor], alpha: float, threshold: float) -> Tensor:
    """z - alpha grad loss(z), repeated while the loss was above 1 - threshold, MAX_REFINEMENTS times at most."""
    for _ in range(1 + MAX_REFINEMENTS):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = loss(z)
            (gradient,) = torch.autograd.grad(value, z)
        z = z.detach() - alpha * gradient
        if value <= 1 - threshold:
            break
    return z


def attention_loss(model: TextConditioned, z: Tensor, t: int, cond: Tensor, words: Sequence[list[int]]) -> Tensor:
    """1 - the largest attention to the word that has the least: z (1, C, H, W), cond (1, L, D) -> ()."""
    maps = attention_maps(model, z, torch.full((1,), t, device=z.device), cond)  # (1, h, w, L)
    return 1 - max_attention_per_word(maps[0], words, model.text.config.max_length).min()


def max_attention_per_word(maps: Tensor, words: Sequence[list[int]], length: int) -> Tensor:
    """max over the places of G * P_w for each word: maps (h, w, L), token indices of M words -> (M,).

    length: of a chunk of the prompt; L / length of them follow each other.
    """
    place = torch.arange(maps.shape[-1], device=maps.device) % length
    outer = (place == 0) | (place == length - 1)  # the last is a padding if the chunk is not full
    P = (100 * maps).masked_fill(outer, float("-inf")).softmax(dim=-1)  # (h, w, L)
    P_w = torch.stack([P[..., word].sum(dim=-1) for word in words])[:, None]  # (M, 1, h, w)
    smooth = F.conv2d(F.pad(P_w, (1, 1, 1, 1), mode="reflect"), GAUSSIAN.to(P_w)[None, None])
    return smooth.amax(dim=(1, 2, 3))


def attention_maps(model: TextConditioned, z: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """The UNet's cross-attention A, the mean over heads and layers of one level, differentiable.

    z (B, C, H, W), t (B,), cond (B, L, D) -> (B, h, w, L), 1 in sum over L. Forward hooks keep the queries and keys of
    each layer, because a fused attention never has the maps.
    """
    level, layers = cross_attention_layers(model.unet)
    with recorded(layers) as projections:
        model(z, t, cond)
    pairs = zip(projections[::2], projections[1::2], strict=True)
    maps = torch.cat([attention_probabilities(q, k, layers[0].heads) for q, k in pairs], dim=1)  # (B, heads, T, L)
    return rearrange(maps.mean(dim=1), "b (h w) l -> b h w l", h=z.shape[2] >> level)


@contextmanager
def recorded(layers: Sequence[Attention]) -> Iterator[list[Tensor]]:
    """A list that fills with q and k of each layer, layer by layer, as a model runs forward; with their gradients.

    Compiled blocks, which would pass by the hooks, run uncompiled in the block.
    """
    projections = []
    with ExitStack() as hooks, torch.compiler.set_stance("force_eager"):
        for linear in (linear for layer in layers for linear in (layer.to_q, layer.to_k)):
            hooks.enter_context(linear.register_forward_hook(lambda linear, inputs, out: projections.append(out)))
        yield projections


def decoder_layers(unet: UNet) -> list[Attention]:
    """The cross-attentions of the decoder, all levels."""
    return [block.attn2 for block in unet.up.modules() if isinstance(block, TransformerBlock)]


def word_attention(
    layers: Sequence[Attention], projections: Sequence[Tensor], word: list[int], shape: tuple[int, int]
) -> Tensor:
    """The attention of each place to the tokens of a word, the mean over heads and layers -> (B, 1, h, w) of `shape`.

    projections: what `recorded` kept of these layers, whose maps are resized to the shape, bilinearly.
    """
    maps = []
    for layer, q, k in zip(layers, projections[::2], projections[1::2], strict=True):
        to_word = attention_probabilities(q, k, layer.heads)[..., word].sum(-1).mean(1)  # (B, T)
        rows = round((to_word.shape[1] * shape[0] / shape[1]) ** 0.5)
        to_word = rearrange(to_word, "b (h w) -> b 1 h w", h=rows)
        maps.append(F.interpolate(to_word, shape, mode="bilinear", align_corners=False))
    return torch.stack(maps).mean(0)


def cross_attention_layers(unet: UNet) -> tuple[int, list[Attention]]:
    """A level of the UNet and its cross-attentions: of the encoder, the decoder, and the middle if that is its size.

    The level is the last one with text whose maps are ATTENTION_SIDE wide or wider at the size that the UNet was
    trained on: level 2 of Stable Diffusion (16, or 24 for 768 pixels), the first of UNet-T, whose 4x4 maps hardly tell
    one place from another. If none is, the first that has text.
    """
    c = unet.config
    text = [level for level, has in enumerate(c.text) if has]
    level = max((level for level in text if c.input_size >> level >= ATTENTION_SIDE), default=min(text))
    parts = [unet.down[level], unet.up[-1 - level], *([unet.mid] if level == len(c.text) - 1 else [])]
    return level, [block.attn2 for part in parts for block in part.modules() if isinstance(block, TransformerBlock)]


def attention_probabilities(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(K)), in float32 at least: q (B, T, N K), k (B, L, N K) -> (B, N, T, L)."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    q, k = (rearrange(x.to(dtype), "b t (n k) -> b n t k", n=heads) for x in (q, k))
    with torch.autocast(q.device.type, enabled=False):
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)


def token_indices(word: str, prompt: str, tokenizer: Tokenizer) -> list[int]:
    """Indices of a word's tokens, at all its occurrences in a prompt, among the states of encode_prompts.

    Raises ValueError if the prompt does not have the word.
    """
    ids, inside = tokenizer.encode(word), {i for token, i in tokenizer.vocab.items() if not token.endswith(WORD_END)}
    rows = [(row * tokenizer.length + 1, chunk) for row, chunk in enumerate(chunks(prompt, tokenizer))]
    placed = [(first + i, token) for first, chunk in rows for i, (token, _) in enumerate(chunk)]
    begins = [i for i in range(len(placed)) if i == 0 or placed[i - 1][1] not in inside]
    occurrences = [placed[i : i + len(ids)] for i in begins if [token for _, token in placed[i : i + len(ids)]] == ids]
    if not ids or not occurrences:
        raise ValueError(f"expected the word {word!r} in the prompt that shall show it, found {prompt!r}")
    return [index for occurrence in occurrences for index, _ in occurrence]
