"""Augmentation of training batches."""

import torch
import torch.nn.functional as F


def random_crop_flip(
    images: torch.Tensor,
    *,
    padding: int,
    flip: bool,
    generator: torch.Generator,
    first: int = 0,
    total: int | None = None,
) -> torch.Tensor:
    """Shift each image by its own random offset, and mirror each with probability 1/2.

    This is the field's usual augmentation: pad with zeros, cut a random window of the original size, flip
    left to right. The result depends on `images` and the state of `generator` alone.

    Args:
        images: Shape (N, C, H, W), any dtype and device.
        padding: The largest shift in pixels, each way; 0 shifts nothing.
        flip: Whether to mirror.
        generator: Where the randomness comes from; its own device may differ from that of `images`.
        first: Which image of a larger batch the first of these is. What an image becomes is what it would become there.
        total: How many images that batch has; None: these alone.

    Returns:
        A new tensor of the same shape, dtype and device.

    Raises:
        ValueError: If `images` has another rank, or `padding` is negative.
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), not {tuple(images.shape)}")
    if padding < 0:
        raise ValueError(f"padding must be at least 0 pixels, not {padding}")
    count, channels, height, width = images.shape
    source = generator.device
    drawn, own = count if total is None else total, slice(first, first + count)
    shifts = torch.randint(2 * padding + 1, (2, drawn, 1), generator=generator, device=source)[:, own]
    mirrored = torch.rand((drawn, 1), generator=generator, device=source)[own] < (0.5 if flip else 0.0)

    across = torch.arange(width, device=source)
    rows = shifts[0] + torch.arange(height, device=source)
    columns = shifts[1] + torch.where(mirrored, width - 1 - across, across)
    pixels = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).flatten(1)
    padded = F.pad(images, (padding,) * 4).flatten(2)
    return padded.gather(2, pixels[:, None].to(images.device).expand(-1, channels, -1)).view(images.shape)
