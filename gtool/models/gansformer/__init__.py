"""GANsformer (Hudson and Zitnick 2021)."""
