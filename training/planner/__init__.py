"""The pre-flight of training: parameters, memory, work and time of a config, all predicted."""

from training.planner.decide import Plan, plan

__all__ = ["Plan", "plan"]
