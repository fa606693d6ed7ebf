"""The world's own models: VAE, backbone, and the probe that measures."""
