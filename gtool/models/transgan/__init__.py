"""TransGAN (Jiang et al. 2021)."""
