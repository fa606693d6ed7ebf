"""Guidance by the text and by the identity apart.

Ordinary guidance is ``negative + cfg (positive - negative)``, which strengthens text and identity alike. With a third
evaluation, the positive prompt without identity, the two differences get a scale each:

    negative + text_cfg (without - negative) + identity_cfg (positive - without)

That is ordinary guidance at ``text_cfg`` with another positive in place of the positive: :func:`rescaled_positive`. So
whatever changes guidance in a host goes on to work, and equal scales are ordinary guidance.
"""

from torch import Tensor


def rescaled_positive(positive: Tensor, without: Tensor, share: float) -> Tensor:
    """``without + share (positive - without)``, of any shape.

    Args:
        positive: the prediction for the positive prompt with the identity.
        without: the one for the same prompt without.
        share: ``identity_cfg / text_cfg``.
    """
    return without + share * (positive - without)
