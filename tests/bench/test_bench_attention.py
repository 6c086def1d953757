"""The comparison of attention backends prints its table."""

from bench.attention import main


def test_bench_prints_both_works_for_each_dtype(capsys):
    main(shapes=[(1, 2, 4, 8)], seconds=0.01)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["float32", "float32", "bfloat16", "bfloat16"]
    assert "forward" in lines[2] and "train" in lines[3]
