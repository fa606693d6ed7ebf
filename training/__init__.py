"""Slot-ID without ComfyUI: sampling and training on diffusers' Wan."""
