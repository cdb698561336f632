"""The sections of a training configuration."""
