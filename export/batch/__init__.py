"""Many checkpoints to many bundles in one go, from a plan.

plan.yaml ──plan──> jobs ──record──> what is missing ──make, one process a bundle──> rows ──summary──> tables
"""
