"""Somebody else's node pack, as far as the server's tests need one. ComfyUI loads this file as custom nodes."""

import gc
import sys


class OtherHalveBlock:
    """Sets ``patches_replace`` on a block that FiLM modulates too."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def run(self, model):
        def halve(args, extra):
            out = extra["original_block"](args)
            return {**out, "img": out["img"] * 0.5}

        patched = model.clone()
        patched.set_model_patch_replace(halve, "dit", "double_block", 3)
        return (patched,)


class OtherAfter:
    """The very same model, but not before ``latent`` was sampled."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "latent": ("LATENT",)}}

    def run(self, model, latent):
        return (model,)


class OtherModules:
    """Which of these modules the server has loaded by now."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"names": ("STRING", {})}}

    def run(self, names):
        return {"ui": {"text": [name for name in names.split() if name in sys.modules]}}


class OtherMemory:
    """How many tensors live in the server, and how much of its memory is resident."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"when": ("INT", {})}}

    def run(self, when):
        import ctypes

        import psutil
        import torch

        gc.collect()
        if sys.platform == "linux":
            # Freed blocks that glibc keeps come and go by 25 MiB, whatever ran.
            getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)
        tensors = sum(1 for thing in gc.get_objects() if isinstance(thing, torch.Tensor))
        return {"ui": {"text": [str(tensors), str(psutil.Process().memory_info().rss)]}}


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (OtherHalveBlock, OtherAfter, OtherModules, OtherMemory)}
