"""From an image to labels: proposals, embedding, decoding, instances."""
