"""The samplers: one loop each, from noise to a latent, of any denoiser; lcm stands beside its distillation."""
