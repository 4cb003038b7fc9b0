"""Pretrained networks: names, weights, layers and identities."""
