"""VQGAN of Taming Transformers (Esser et al. 2021)."""
