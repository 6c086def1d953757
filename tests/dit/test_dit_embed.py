"""Patches, positions, labels."""

import pytest
import torch

from dit.embed import LabelEmbedder, PatchEmbed, position_table


def test_patches_are_row_major():
    embed = PatchEmbed(1, 4, 2)
    torch.nn.init.ones_(embed.proj.weight)
    torch.nn.init.zeros_(embed.proj.bias)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert embed(x)[0, :, 0].tolist() == [10, 18, 42, 50]  # sums of the four 2 x 2 patches


def test_position_zero_is_quarters_of_zeros_and_ones():
    assert position_table(16, 3, 3)[0, 0].tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_first_half_is_the_column_second_the_row():
    table = position_table(16, 2, 3).view(2, 3, 16)
    assert torch.equal(table[0, :, :8], table[1, :, :8]) and not torch.equal(table[0, 0, :8], table[0, 1, :8])
    assert torch.equal(table[:, 0, 8:], table[:, 2, 8:]) and not torch.equal(table[0, 0, 8:], table[1, 0, 8:])


def test_position_values():
    row = position_table(8, 1, 3)[0, 2]  # column 2: angles 2 and 2 / 100
    assert row.tolist() == pytest.approx([0.909297, 0.0199987, -0.416147, 0.99980, 0, 0, 1, 1], abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 6], [-1, 3]])
def test_label_outside_the_table_is_refused(labels):
    found = rf"labels must lie in 0\.\.5, found {min(labels)}\.\.{max(labels)}"
    with pytest.raises(ValueError, match=found):
        LabelEmbedder(6, 4)(torch.tensor(labels))


def test_labels_read_their_rows():
    embed = LabelEmbedder(6, 4)
    assert torch.equal(embed(torch.tensor([5, 0])), embed.embedding_table.weight[[5, 0]])
