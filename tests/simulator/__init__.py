"""Plays kubelet, runner and loader on an API server that has no nodes: pods run here as scripts, through the contract only."""

from tests.simulator.script import Crash, Death, Ends, Failure, Play, Server, Step
from tests.simulator.simulator import Simulator

__all__ = ["Crash", "Death", "Ends", "Failure", "Play", "Server", "Simulator", "Step"]
