"""The transformer over a tokenizer's codes of Taming Transformers, and image-GPT."""
