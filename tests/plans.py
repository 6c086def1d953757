"""The file of a comparison of two seeds on the tiny models, for tests that read it and for those that run it."""

SETTINGS = """
seeds = 2
real = "generated:pill+tile/test/2"
[train]
model = "{tiny}/dit.safetensors"
vae = "{tiny}/vae.safetensors"
data = "generated:pill+tile/few/1"
steps = 2
batch = 2
warmup = 0
save_every = 1
sample_every = 2
sample_steps = 2
count = 1
precision = "fp32"
cache = ""
[sample]
steps = 2
count = 1
precision = "fp32"
"""


def write_plan(tmp_path, tiny, more):
    path = tmp_path / "plan.toml"
    path.write_text(SETTINGS.replace("{tiny}", str(tiny)) + more)
    return path
