"""The batched solver that linear heads share."""
