"""Segment Anything, its registry, LoRA, and the prompt generator."""
