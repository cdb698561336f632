"""Sharing a model: a card that shows what a run measured, and the upload to the Hugging Face Hub."""

from dualrs.sharing.share import model_card, share, stage

__all__ = ["model_card", "share", "stage"]
