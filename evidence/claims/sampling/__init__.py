"""Claims about guidance, samplers and distillation."""
