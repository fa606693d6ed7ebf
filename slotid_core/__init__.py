"""The Slot-ID method in plain torch: from a reference clip's latents to an identity, and from that to a backbone's
inputs. It knows no host: ComfyUI is in ``nodes/``, diffusers in ``training/``.
"""
