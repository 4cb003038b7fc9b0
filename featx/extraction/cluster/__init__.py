"""Extraction on a cluster with Ray Data: the driver plans and writes, the cluster reads, decodes and runs the network."""
